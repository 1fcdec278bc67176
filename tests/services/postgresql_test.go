// SPDX-License-Identifier: Apache-2.0

package services

import (
	"strings"
	"testing"
)

// TestPostgreSQL: a cluster on a named volume is made by the first pod, loaded
// from another pod that finds it by name, and whole after every kind of end.
func TestPostgreSQL(t *testing.T) {
	s := open(t, "postgresql")
	s.Must("network", "create", "back")
	s.Must("volume", "create", "cluster")
	db := database{s}
	db.start()
	s.Must("run", "--rm", "--net", "back", "--entrypoint", "/usr/lib/postgresql/15/bin/pgbench", s.image("postgresql"),
		"-h", "db", "-U", "postgres", "-i", "-s", "1", "--quiet")
	db.bench()
	db.sound()
	before := db.ask("select count(*) from pgbench_history")
	s.stop("db") // SIGINT: a fast shutdown

	db.start()
	if after := db.ask("select count(*) from pgbench_history"); after != before || after == "0" {
		t.Errorf("%s transactions before a restart, %s after", before, after)
	}
	s.crash("db")
	db.start()
	db.sound()
	if after := db.ask("select count(*) from pgbench_history"); after != before {
		t.Errorf("%s transactions before a crash, %s after", before, after)
	}
	db.bench()
	db.sound()
	if r := s.Run("volume", "rm", "cluster"); r.Status == 0 || !strings.Contains(r.Stderr, "used by pod") {
		t.Errorf("a volume in use was removed: %d %s", r.Status, r.Stderr)
	}
	s.stop("db")
	s.Must("volume", "rm", "cluster")
	s.Must("network", "rm", "back")
}

type database struct{ *site }

func (d database) start() {
	d.t.Helper()
	d.site.start("db", "--net", "back", "-v", "cluster:/var/lib/postgresql/data", d.image("postgresql"))
	d.eventually("postgresql answers", func() bool {
		return d.Run("exec", "db", "/usr/lib/postgresql/15/bin/pg_isready", "-q", "-h", "/tmp").Status == 0
	})
}

func (d database) ask(sql string) string {
	d.t.Helper()
	return d.Must("exec", "db", "psql", "-h", "/tmp", "-U", "postgres", "-Atc", sql)
}

// bench loads it from a pod of its own.
func (d database) bench() {
	d.t.Helper()
	out := d.Must("run", "--rm", "--net", "back", "--entrypoint", "/usr/lib/postgresql/15/bin/pgbench", d.image("postgresql"),
		"-h", "db", "-U", "postgres", "-c", "4", "-T", "5", "-n") // else it throws the history away
	if !strings.Contains(out, "number of failed transactions: 0 ") {
		d.t.Errorf("pgbench: %s", out)
	}
	d.t.Log(out)
}

// sound: what pgbench moves between accounts, tellers and branches adds up.
func (d database) sound() {
	d.t.Helper()
	const sums = `select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
		and (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history)
		and (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)`
	if got := d.ask(sums); got != "t" {
		d.t.Errorf("the books do not add up: %q", got)
	}
}
