package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// gossipKeyBytes makes it AES-256.
const gossipKeyBytes = 32

func (a *app) keygenCommand() *cobra.Command {
	var gossip bool
	var out string
	cmd := &cobra.Command{
		Use:     "keygen --gossip",
		Short:   "Make a key",
		Long:    "Make a new key for the encryption of gossip: 32 random bytes as base64, for --gossip-key-file. All nodes of a cluster have the same.",
		Example: "  pairdb keygen --gossip --out gossip.key",
		GroupID: groupRun,
		Args:    args(),
	}
	cmd.Flags().BoolVar(&gossip, "gossip", false, "a key for gossip")
	cmd.Flags().StringVar(&out, "out", "", "write it to this new file, readable by its owner alone, instead of stdout")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !gossip {
			f := usagef("pairdb keygen: what the key is for is missing")
			f.next = "Use pairdb keygen --gossip."
			return f
		}
		key := make([]byte, gossipKeyBytes)
		if _, err := rand.Read(key); err != nil {
			return fmt.Errorf("make key: %w", err)
		}
		text := []byte(base64.StdEncoding.EncodeToString(key) + "\n")
		if out == "" {
			return a.write(text)
		}
		return writeNewSecret(out, text)
	}
	return cmd
}

// writeNewSecret never replaces a file: the old key may be in use.
func writeNewSecret(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key %s: %w", path, err)
	}
	return nil
}
