package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	progressEvery = 100 * time.Millisecond
	progressWidth = 30
)

// drawProgress keeps one line of w up to date until the returned function is
// called, which clears it. It is for terminals.
func drawProgress(w io.Writer, verb string, p *progress) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		began := time.Now()
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				// A bar that cannot be drawn is no reason to stop.
				_, _ = io.WriteString(w, "\r\x1b[K")
				return
			case <-tick.C:
				_, _ = io.WriteString(w, "\r"+progressLine(verb, p, time.Since(began))+"\x1b[K")
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
	})
}

// progressLine is the bar at one moment.
func progressLine(verb string, p *progress, elapsed time.Duration) string {
	files, bytes := p.files.Load(), p.bytes.Load()
	rate := megabytesPerSecond(bytes, elapsed)
	if !p.known.Load() {
		return fmt.Sprintf("%s %d %s, %.1f MB, %.1f MB/s", verb, files, cmp.Or(p.unit, "files"), float64(bytes)/1e6, rate)
	}
	total := max(p.totalFiles.Load(), 1)
	full := int(min(files, total) * progressWidth / total)
	if p.unit != "" {
		return fmt.Sprintf("%s [%s%s] %d/%d %s, %.1f MB, %.1f MB/s", verb,
			strings.Repeat("#", full), strings.Repeat(".", progressWidth-full),
			files, p.totalFiles.Load(), p.unit, float64(bytes)/1e6, rate)
	}
	return fmt.Sprintf("%s [%s%s] %d/%d files, %.1f/%.1f MB, %.1f MB/s", verb,
		strings.Repeat("#", full), strings.Repeat(".", progressWidth-full),
		files, p.totalFiles.Load(), float64(bytes)/1e6, float64(p.totalBytes.Load())/1e6, rate)
}

// countAhead finds out what there is to do while it is being done. What cannot
// be read is left out: the import itself reports it.
func (p *progress) countAhead(ctx context.Context, dir string) {
	var files, bytes int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			files++
			bytes += info.Size()
		}
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	p.totalFiles.Store(files)
	p.totalBytes.Store(bytes)
	p.known.Store(true)
}

// megabytesPerSecond is 0 for no time at all.
func megabytesPerSecond(bytes int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(bytes) / 1e6 / d.Seconds()
}
