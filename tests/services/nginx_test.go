// SPDX-License-Identifier: Apache-2.0

package services

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/gantryrun/gantry/tests/ability"
)

// TestNginx: pages through a published port, by the kernel and by the proxy,
// under load, over restarts and a crash on the same port.
func TestNginx(t *testing.T) {
	ability.Require(t, ability.Tool("wrk"))
	s := open(t, "nginx")
	s.start("web", "-p", "8080:80", s.image("nginx"))
	for _, host := range []string{address, "127.0.0.1", "[::1]"} {
		url := "http://" + host + ":8080/"
		s.answers(url)
		page, err := get(url)
		if err != nil || !strings.Contains(page, "Welcome to nginx") {
			t.Errorf("%s: %q %v", url, page, err)
		}
		s.load(url)
	}
	s.stop("web") // SIGQUIT, the image's: workers end their requests first

	s.start("web", "-p", "8080:80", "--read-only", "--tmpfs", "/var/lib/nginx", s.image("nginx"))
	s.answers("http://127.0.0.1:8080/")
	s.crash("web")
	s.start("web", "-p", "8080:80", s.image("nginx"))
	s.answers("http://127.0.0.1:8080/")
	s.answers("http://" + address + ":8080/")
	s.stop("web")
}

// failed is what wrk prints of requests that did.
var failed = regexp.MustCompile(`(?m)^\s*(Socket errors:|Non-2xx).*`)

// load asks for a page with 32 connections for some seconds.
func (s *site) load(url string) {
	s.t.Helper()
	out, err := exec.Command("wrk", "-t2", "-c32", "-d3s", url).CombinedOutput()
	if err != nil {
		s.t.Fatalf("wrk %s: %v: %s", url, err, out)
	}
	if m := failed.Find(out); m != nil || !strings.Contains(string(out), "Requests/sec") {
		s.t.Errorf("under load %s: %s\n%s", url, m, out)
	}
	s.t.Logf("%s", out)
}
