// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestWebApplication: Flask under gunicorn counts visits in a redis it knows by
// name, which comes back at another address.
func TestWebApplication(t *testing.T) {
	s := open(t, "web", "redis")
	s.Must("network", "create", "shop")
	s.Must("volume", "create", "visits")
	redis := func() { s.start("redis", "--net", "shop", "-v", "visits:/data", s.image("redis")) }
	redis()
	s.start("web", "--net", "shop", "-p", "8000:8000", "-e", "REDIS=redis:6379", s.image("web"))
	s.answers("http://127.0.0.1:8000/healthy")
	visits := func() int {
		t.Helper()
		var page struct{ Visits int }
		s.eventually("redis is reached", func() bool {
			text, err := get("http://" + address + ":8000/")
			return err == nil && json.Unmarshal([]byte(text), &page) == nil
		})
		return page.Visits
	}
	first := visits()
	out := s.Must("run", "--rm", "--net", "shop", "--entrypoint", "redis-benchmark", s.image("redis"),
		"-h", "redis", "--csv", "-n", "20000", "-c", "20", "-t", "set,get,incr")
	if !strings.Contains(out, `"INCR"`) {
		t.Errorf("redis-benchmark: %s", out)
	}
	t.Log(out)
	s.stop("redis")
	redis()
	if second := visits(); second != first+1 {
		t.Errorf("%d visits before redis was started anew, %d after", first, second)
	}
	s.crash("redis")
	redis()
	if third := visits(); third < first+1 {
		t.Errorf("%d visits before redis crashed, %d after", first+1, third)
	}
	s.stop("web")
	s.stop("redis")
}

// TestNode: bodies in both directions, and an end by its own handler.
func TestNode(t *testing.T) {
	s := open(t, "node")
	s.start("node", "-p", "3000:3000", s.image("node"))
	body := bytes.Repeat([]byte("gantry "), 1<<20)
	for _, host := range []string{address, "127.0.0.1", "[::1]"} {
		url := "http://" + host + ":3000/"
		s.answers(url)
		r, err := http.Post(url, "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !bytes.Equal(got, bytes.ToUpper(body)) {
			t.Errorf("%s: %d of %d bytes came back: %v", url, len(got), len(body), err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	s.Must("stop", "node")
	if log := s.Must("logs", "node"); !strings.Contains(log, "bye") {
		t.Errorf("no graceful end: %q", log)
	}
	s.Must("rm", "node")
	s.start("node", "-p", "3000:3000", s.image("node"))
	s.answers("http://127.0.0.1:3000/")
	s.crash("node")
}
