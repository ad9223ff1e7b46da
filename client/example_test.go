package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/pairdb/pairdb/client"
	"github.com/pairdb/pairdb/client/clienttest"
)

// startNode stands for a running cluster.
func startNode() (endpoint string, stop func()) {
	node, err := clienttest.Start(clienttest.NewStore())
	if err != nil {
		log.Fatal(err)
	}
	return node.Addr(), node.Close
}

func Example() {
	endpoint, stop := startNode()
	defer stop()

	c, err := client.New(client.Options{Endpoints: []string{endpoint}, Timeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	if _, err := c.Put(ctx, "greeting", []byte("hello")); err != nil {
		log.Fatal(err)
	}
	got, err := c.Get(ctx, "greeting", client.WithLevel(client.LevelOne))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", got.Value)
	// Output: hello
}

// A write that carries the context of a read supersedes exactly what was read.
func ExampleWithContext() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	if _, err := c.Put(ctx, "cart", []byte("1 apple")); err != nil {
		log.Fatal(err)
	}
	read, err := c.Get(ctx, "cart")
	if err != nil {
		log.Fatal(err)
	}
	next := append(read.Value, ", 1 pear"...)
	if _, err := c.Put(ctx, "cart", next, client.WithContext(read.Context)); err != nil {
		log.Fatal(err)
	}
	read, err = c.Get(ctx, "cart")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", read.Value)
	// Output: 1 apple, 1 pear
}

// A scan goes over the keys with a prefix, page by page.
func ExampleClient_Scan() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()

	for _, item := range []string{"apple", "pear"} {
		if _, err := c.Put(ctx, "{cart7}"+item, []byte("1")); err != nil {
			log.Fatal(err)
		}
	}
	s := c.Scan(ctx, client.ScanOptions{Prefix: "{cart7}"})
	defer s.Close()
	for s.Next() {
		fmt.Printf("%s: %s\n", s.Item().Key, s.Item().Value)
	}
	if err := s.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// {cart7}apple: 1
	// {cart7}pear: 1
}

// Errors are matched by what they mean, and carry the rest.
func ExampleError() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	_, err = c.Get(context.Background(), "nobody wrote this")
	fmt.Println(errors.Is(err, client.ErrKeyNotFound))

	var e *client.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code)
	}
	// Output:
	// true
	// KEY_NOT_FOUND
}
