// SPDX-License-Identifier: Apache-2.0

// Command registry serves an in-memory OCI registry on loopback for tests,
// with or without the referrers API. It prints the address it listens on, and
// writes the port into a file for scripts to read: the file is there, whole, as
// soon as the registry answers.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	referrers := flag.Bool("referrers", false, "serve the referrers API")
	portfile := flag.String("portfile", "", "file to write the port into")
	flag.Parse()
	if err := serve(*addr, *portfile, *referrers); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func serve(addr, portfile string, referrers bool) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if portfile != "" {
		if err := writePort(portfile, l.Addr().(*net.TCPAddr).Port); err != nil {
			return err
		}
	}
	fmt.Println(l.Addr())
	return http.Serve(l, registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0))))
}

// writePort replaces the file by rename: whoever waits for it reads all of it.
func writePort(file string, port int) error {
	temp := file + ".tmp"
	if err := os.WriteFile(temp, []byte(strconv.Itoa(port)+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, file)
}
