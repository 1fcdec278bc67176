// SPDX-License-Identifier: Apache-2.0

// Command freeport prints a TCP port of the loopback interface that nobody
// listens on.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintf(os.Stderr, "freeport: %v\n", err)
		os.Exit(1)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err == nil {
		err = listener.Close()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "freeport: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(port)
}
