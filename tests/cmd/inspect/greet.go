// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// greet serves "greet NAME KIND:PORT…": whoever comes hears the name and the
// address they are seen as. It says that it listens, and ends at SIGTERM.
func greet(args []string) (int, error) {
	if len(args) < 2 {
		return 2, errors.New("usage: greet NAME KIND:PORT…")
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	for _, spec := range args[1:] {
		kind, port, _ := strings.Cut(spec, ":")
		if err := greetAt(args[0], kind, ":"+port); err != nil {
			return 1, err
		}
	}
	fmt.Println("listening")
	<-term
	return 0, nil
}

func greetAt(name, kind, address string) error {
	hello := func(a net.Addr) []byte {
		return []byte(name + " " + netip.MustParseAddrPort(a.String()).Addr().Unmap().String() + "\n")
	}
	if strings.HasPrefix(kind, "udp") {
		l, err := net.ListenPacket(kind, address)
		if err != nil {
			return err
		}
		go func() {
			for b := make([]byte, 1<<16); ; {
				_, from, err := l.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = l.WriteTo(hello(from), from)
			}
		}()
		return nil
	}
	l, err := net.Listen(kind, address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(hello(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
	return nil
}

// ask prints what a greeter says: "ask KIND ADDRESS [SECONDS]". It goes on
// asking for as long, since a server may not be there yet.
func ask(args []string) (int, error) {
	if len(args) != 2 && len(args) != 3 {
		return 2, errors.New("usage: ask KIND ADDRESS [SECONDS]")
	}
	patience := 20.0
	if len(args) == 3 {
		var err error
		if patience, err = strconv.ParseFloat(args[2], 64); err != nil {
			return 2, err
		}
	}
	until := time.Now().Add(time.Duration(patience * float64(time.Second)))
	for {
		answer, err := askOnce(args[0], args[1])
		if err == nil && len(answer) > 0 {
			_, err = os.Stdout.Write(answer)
			return 0, err
		}
		if time.Now().After(until) {
			return 1, fmt.Errorf("nobody answers at %s %s: %w", args[0], args[1], err)
		}
	}
}

func askOnce(kind, address string) ([]byte, error) {
	const moment = 400 * time.Millisecond
	c, err := net.DialTimeout(kind, address, moment)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(moment))
	if strings.HasPrefix(kind, "udp") {
		if _, err := c.Write([]byte("who")); err != nil {
			return nil, err
		}
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		return b[:n], err
	}
	return io.ReadAll(c)
}
