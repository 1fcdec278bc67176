// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEtcd: three members find each other by name. They are killed and replaced
// one at a time while somebody writes all the time; no write that was
// acknowledged is lost.
func TestEtcd(t *testing.T) {
	s := open(t, "etcd")
	s.Must("network", "create", "cluster")
	c := cluster{site: s}
	for n := range members {
		s.Must("volume", "create", c.name(n))
		c.start(n, "new")
	}
	c.healthy()

	w := writer{c: c, stop: make(chan struct{})}
	w.Go(w.write)
	for n := range members {
		w.more(20)
		s.crash(c.name(n))
		w.more(20) // two members carry on
		c.start(n, "existing")
		c.healthy()
	}
	for n := range members { // as for another version of the image
		w.more(20)
		s.stop(c.name(n))
		w.more(20)
		c.start(n, "existing")
		c.healthy()
	}
	w.more(20)
	close(w.stop)
	w.Wait()

	for n := range members {
		for i := range w.acknowledged {
			if got := c.read(n, i); got != fmt.Sprint(i) {
				t.Fatalf("member %d has %q for write %d of %d", n, got, i, w.acknowledged)
			}
		}
	}
	t.Logf("%d writes, none lost; %d had to be repeated at another member", w.acknowledged, w.repeated)
	for n := range members {
		s.stop(c.name(n))
	}
}

const members = 3

type cluster struct{ *site }

func (c cluster) name(n int) string { return fmt.Sprintf("etcd%d", n) }

func (c cluster) port(n int) string { return fmt.Sprint(2379 + 1000*n) }

func (c cluster) start(n int, state string) {
	c.t.Helper()
	var all []string
	for m := range members {
		all = append(all, fmt.Sprintf("%s=http://%[1]s:2380", c.name(m)))
	}
	name := c.name(n)
	c.site.start(name, "--net", "cluster", "-v", name+":/data", "-p", c.port(n)+":2379", c.image("etcd"),
		"--name", name, "--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", state,
		"--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", "http://"+name+":2380",
		"--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", "http://"+name+":2379")
}

// healthy waits until every member serves reads that the majority agreed to.
func (c cluster) healthy() {
	c.t.Helper()
	for n := range members {
		c.eventually(c.name(n)+" is healthy", func() bool {
			text, err := get("http://" + address + ":" + c.port(n) + "/health")
			return err == nil && strings.Contains(text, `"true"`)
		})
	}
}

// call speaks to a member's gateway from the host.
func (c cluster) call(n int, method string, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Post("http://"+address+":"+c.port(n)+"/v3/kv/"+method, "application/json", bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", method, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(answer)
}

func encoded(i int) string { return base64.StdEncoding.EncodeToString([]byte(fmt.Sprint(i))) }

func (c cluster) put(n, i int) error {
	var answer struct{ Header struct{ Revision string } }
	return c.call(n, "put", map[string]string{"key": encoded(i), "value": encoded(i)}, &answer)
}

func (c cluster) read(n, i int) string {
	c.t.Helper()
	var answer struct{ KVs []struct{ Value []byte } }
	if err := c.call(n, "range", map[string]string{"key": encoded(i)}, &answer); err != nil {
		c.t.Fatal(err)
	}
	if len(answer.KVs) != 1 {
		return ""
	}
	return string(answer.KVs[0].Value)
}

// writer writes 0, 1, 2, … one after the other, each at whichever member takes
// it.
type writer struct {
	sync.WaitGroup
	c    cluster
	stop chan struct{}

	lock         sync.Mutex
	acknowledged int
	repeated     int
}

func (w *writer) write() {
	for member := 0; ; {
		select {
		case <-w.stop:
			return
		default:
		}
		err := w.c.put(member, w.acknowledged)
		w.lock.Lock()
		if err == nil {
			w.acknowledged++
		} else {
			w.repeated++
			member = (member + 1) % members
		}
		w.lock.Unlock()
	}
}

// more waits until so many more writes were acknowledged.
func (w *writer) more(n int) {
	w.c.t.Helper()
	count := func() int {
		w.lock.Lock()
		defer w.lock.Unlock()
		return w.acknowledged
	}
	until := count() + n
	w.c.eventually("writes go on", func() bool { return count() >= until })
}
