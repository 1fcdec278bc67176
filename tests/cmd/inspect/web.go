// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func httpGet(args []string) (int, error) {
	if err := want(args, 1, "http-get URL"); err != nil {
		return 2, err
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(args[0])
	if err != nil {
		return 1, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, io.LimitReader(resp.Body, 1<<20))
	return 0, err
}

// serve is a small static web server: inspect serve ADDRESS DIRECTORY. It says
// its address once it listens, so that port 0 is usable, and ends at SIGTERM.
func serve(args []string) (int, error) {
	if err := want(args, 2, "serve ADDRESS DIRECTORY"); err != nil {
		return 2, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return 1, err
	}
	server := http.Server{Handler: http.FileServer(http.Dir(args[1])), ReadHeaderTimeout: 5 * time.Second}
	fmt.Printf("serving %s on http://%s\n", args[1], listener.Addr())
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return 1, err
	}
	return 0, nil
}
