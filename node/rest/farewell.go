package rest

import (
	"fmt"

	"github.com/pairdb/pairdb/api/errcode"
)

// Farewell is what a client hears whose connection is one too many.
func Farewell() []byte {
	body := fmt.Sprintf(`{"status":"error","error_code":%q,"message":"this node has as many connections as it takes; use fewer, or another node","request_id":""}`+"\n", errcode.ResourceExhausted)
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}
