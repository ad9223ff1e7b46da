package client

import (
	"context"
	"testing"

	"google.golang.org/grpc"
)

// BenchmarkOverhead is what a call that is fine costs beside gRPC.
func BenchmarkOverhead(b *testing.B) {
	for _, bc := range []struct {
		name      string
		k         kind
		at        place
		endpoints []string
		opts      Options
	}{
		{"read", reads, place{tenant: DefaultTenant, class: getClass}, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, Options{}},
		{"write", writes, place{tenant: DefaultTenant, class: writeClass}, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, Options{}},
		{"read-one-endpoint", reads, place{tenant: DefaultTenant, class: getClass}, []string{"127.0.0.1:1"}, Options{}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			bc.opts.Endpoints = bc.endpoints
			c, err := New(bc.opts)
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := c.Close(); err != nil {
					b.Error(err)
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				_, err := invokeAt(b.Context(), c, "get", bc.k, bc.at, func(context.Context, *conn, ...grpc.CallOption) (int, error) { return 1, nil })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
