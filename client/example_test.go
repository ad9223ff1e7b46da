package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
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

// A batch has a result for each of its writes.
func ExampleClient_Batch() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	results, err := c.Batch(ctx, []client.Write{
		client.PutOp("apples", []byte("3"), client.WithIdempotencyKey("order 7")),
		client.DeleteOp("pears", client.WithIdempotencyKey("order 7")),
	})
	if err != nil {
		log.Fatal(err) // no write was begun, or the answer was lost: see Outcome
	}
	for i, r := range results {
		fmt.Println(i, r.Err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
}

// An import stores what an iterator gives, such as the lines of a file, and says
// where to go on if it is stopped.
func ExampleClient_Import() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	lines := bufio.NewScanner(strings.NewReader("apple 3\n 7\npear 1\napple 4\n"))
	items := func(yield func(client.ImportItem, error) bool) {
		for at := 1; lines.Scan(); at++ {
			key, value, _ := strings.Cut(lines.Text(), " ")
			if !yield(client.ImportItem{Key: key, Value: []byte(value), At: at}, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(client.ImportItem{}, err)
		}
	}
	ctx := context.Background()
	res, err := c.Import(ctx, items, client.ImportOptions{
		Again: true, // twice the same value is no harm here
		Failed: func(at int, _ client.ImportItem, err error) bool {
			fmt.Printf("line %d: %v\n", at, err)
			return true // go on
		},
	})
	if err != nil {
		log.Fatalf("go on from line %d: %v", res.Next, err)
	}
	got, err := c.Get(ctx, "apple")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d stored, %d failed, %s apples\n", res.Stored, res.Failed, got.Value)
	// Output:
	// line 2: put: INVALID_KEY: the key is empty; it must have 1 to 1024 bytes
	// 3 stored, 1 failed, 4 apples
}

// Requests of a pipeline are in flight together; their answers come in any order.
func ExamplePipeline() {
	endpoint, stop := startNode()
	defer stop()
	c, err := client.New(client.Options{Endpoints: []string{endpoint}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p := c.Pipeline()
	defer p.Close()

	ctx := context.Background()
	var puts []*client.Future[*client.PutResult]
	for i := range 100 {
		puts = append(puts, p.Put(ctx, fmt.Sprint("key ", i), []byte("value")))
	}
	for _, put := range puts {
		if _, err := put.Wait(ctx); err != nil {
			log.Fatal(err)
		}
	}
	got, err := p.Get(ctx, "key 42").Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", got.Value)
	// Output: value
}
