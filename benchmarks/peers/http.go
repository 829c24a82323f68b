// The yardstick of benchmarks/http.py: Go's own server, answering a constant.
package main

import (
	"fmt"
	"net"
	"net/http"
)

func main() {
	body := []byte(`{"status":"ok"}`)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("serving on http://%s\n", listener.Addr())
	panic(http.Serve(listener, nil))
}
