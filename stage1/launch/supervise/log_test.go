// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryrun/gantry/stage1"
)

// Whatever pieces output comes in, every line is in one file, whole, in its
// order, and no file is larger than it may be.
func TestRotation(t *testing.T) {
	for _, keep := range []int{1, 2, 400} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			dir := t.TempDir()
			l := rotating(t, dir, 2048, keep)
			var all strings.Builder
			for i := range 2000 {
				fmt.Fprintf(&all, "line %d %s\n", i, strings.Repeat("x", i%50))
			}
			text, st := []byte(all.String()), &stream{name: "stdout"}
			for r := rand.New(rand.NewPCG(1, uint64(keep))); len(text) > 0; {
				n := min(1+r.IntN(700), len(text))
				l.record(st, text[:n])
				text = text[n:]
			}
			got, files := read(t, dir, 2048)
			if files > keep || keep > 1 && files < 2 {
				t.Errorf("%d files, %d are to be kept", files, keep)
			}
			if want := all.String(); keep == 400 && got != want || !strings.HasSuffix(want, got) {
				t.Errorf("%d bytes of %d came back, or others", len(got), len(want))
			}
		})
	}
}

func rotating(t *testing.T, dir string, size int64, keep int) *logFile {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	l := openLogFile(&stage1.Contract{LogFile: fd, LogDir: int(d.Fd()), Log: stage1.Log{Name: "log", MaxSize: size, MaxFiles: keep}})
	t.Cleanup(func() { _ = unix.Close(l.fd) })
	return l
}

// read puts together what the files say, oldest first.
func read(t *testing.T, dir string, most int) (string, int) {
	t.Helper()
	var texts []string
	for n := 0; ; n++ {
		name := filepath.Join(dir, "log")
		if n > 0 {
			name += fmt.Sprintf(".%d", n)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			break
		}
		if len(b) > most {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		var text strings.Builder
		for line := range strings.Lines(string(b)) {
			f := strings.SplitN(line, " ", 4)
			if len(f) != 4 || f[1] != "stdout" && !strings.HasPrefix(f[3], "gantry: ") || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%s: %q is torn", name, line)
			}
			text.WriteString(strings.TrimSuffix(f[3], "\n"))
			if f[2] == "F" {
				text.WriteByte('\n')
			}
		}
		texts = append([]string{text.String()}, texts...)
	}
	return strings.Join(texts, ""), len(texts)
}

// A line that a full disk tore is taken away again, so that the next one is a
// line of its own; and what is missing is told when there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	l := rotating(t, dir, 0, 0)
	st := &stream{name: "stdout"}
	l.record(st, []byte("first\n"))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	full := unix.Rlimit{Cur: uint64(l.size) + 60, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	l.record(st, []byte("second\nthird, which does not fit\n")) // SIGXFSZ is the Go runtime's to ignore
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	l.record(st, []byte("fourth\n"))
	const missing = "gantry: the disk had no room for "
	got, _ := read(t, dir, 1<<20)
	if got != "first\nsecond\n"+missing+"1 line\nfourth\n" && got != "first\n"+missing+"2 lines\nfourth\n" {
		t.Errorf("%q", got)
	}
}

// fakeJournal is a socket as journald has it.
func fakeJournal(t *testing.T) (*journal, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(pair[0]); _ = unix.Close(pair[1]) })
	_ = unix.SetNonblock(pair[1], true)
	return openJournal(&stage1.Contract{Journal: pair[0], Log: stage1.Log{Fields: "GANTRY_POD=p\n"}}), pair[1]
}

// take reads one entry, from a datagram or a sealed memory file.
func take(t *testing.T, fd int) map[string]string {
	t.Helper()
	b, oob := make([]byte, 1<<20), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:n]
	if oobn > 0 {
		cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || n != 0 {
			t.Fatalf("%d bytes beside a file: %v", n, err)
		}
		fds, err := unix.ParseUnixRights(&cmsgs[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "entry")
		defer f.Close()
		seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
		if err != nil || seals&(unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL) != 15 {
			t.Errorf("seals %#x: journald wants all of them, %v", seals, err)
		}
		fi, _ := f.Stat()
		b = make([]byte, fi.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		if name, value, ok := bytes.Cut(line, []byte{'='}); ok {
			out[string(name)], b = string(value), rest
			continue
		}
		size := binary.LittleEndian.Uint64(rest)
		out[string(line)], b = string(rest[8:8+size]), rest[8+size+1:]
	}
	return out
}

func TestJournalEntries(t *testing.T) {
	j, peer := fakeJournal(t)
	out, errs := &stream{name: "stdout"}, &stream{name: "stderr"}
	j.record(out, []byte("one\n<4>two\nha"))
	j.record(errs, []byte("bad\x00\n"))
	j.record(out, []byte("lf\nend"))
	j.last(out)
	for i, want := range []map[string]string{
		{"MESSAGE": "one", "PRIORITY": "6", "GANTRY_STREAM": "stdout", "GANTRY_POD": "p"},
		{"MESSAGE": "two", "PRIORITY": "4"},
		{"MESSAGE": "bad\x00", "PRIORITY": "3", "GANTRY_STREAM": "stderr"},
		{"MESSAGE": "half", "PRIORITY": "6"},
		{"MESSAGE": "end"},
	} {
		got := take(t, peer)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("entry %d: %s is %q, want %q", i, name, got[name], value)
			}
		}
	}
	// A line too large for a datagram goes as a file, one too large for an
	// entry as several.
	long := bytes.Repeat([]byte("x"), maxEntry+10)
	j.record(out, append(long, '\n'))
	first, second := take(t, peer), take(t, peer)
	if len(first["MESSAGE"]) != maxEntry || first["CONTAINER_PARTIAL_MESSAGE"] != "true" || len(second["MESSAGE"]) != 10 || second["CONTAINER_PARTIAL_MESSAGE"] != "" {
		t.Errorf("%d bytes, then %d", len(first["MESSAGE"]), len(second["MESSAGE"]))
	}
}

// A journal without room holds the streams back, and not for ever: what it
// does not take is counted and told when there is room again.
func TestJournalWithoutRoom(t *testing.T) {
	j, peer := fakeJournal(t)
	out := &stream{name: "stdout", held: j, from: 0, to: -1}
	sent := 0
	for ; !j.full(); sent++ {
		if sent > 1e6 {
			t.Fatal("it has room for everything")
		}
		j.record(out, []byte("line\n"))
	}
	if fd, _ := out.want(); fd != -1 {
		t.Error("more is read while entries wait")
	}
	if fd, _ := j.want(); fd != j.fd || j.patience() <= 0 {
		t.Error("nobody waits for room")
	}
	take(t, peer)
	if j.send(); j.full() {
		t.Fatal("there is room and it was not used")
	}
	for !j.full() {
		j.record(out, []byte("line\n"))
	}
	j.until = j.until.Add(-journalPatience)
	if j.send(); j.full() || j.lost == 0 {
		t.Fatalf("it is waited for for ever, lost %d", j.lost)
	}
	lost := j.lost
	for {
		if _, _, err := unix.Recvfrom(peer, make([]byte, 4096), 0); err != nil {
			break
		}
	}
	j.record(out, []byte("again\n"))
	if got := take(t, peer); got["MESSAGE"] != "again" {
		t.Errorf("%v", got)
	}
	if got := take(t, peer); !strings.Contains(got["MESSAGE"], "no room for "+lines(lost)) || got["PRIORITY"] != "4" {
		t.Errorf("%v", got)
	}
}
