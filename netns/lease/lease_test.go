// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	podA = "aaaaaaaa-0000-4000-8000-000000000000"
	podB = "bbbbbbbb-0000-4000-8000-000000000000"
)

func addresses(first, last string, not ...string) Range {
	r := Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
	for _, n := range not {
		r.Not = append(r.Not, netip.MustParseAddr(n))
	}
	return r
}

// directory has leases of pods of which those in the map are gone.
func directory(t *testing.T, gone map[string]bool) Dir {
	return Dir{Path: filepath.Join(t.TempDir(), "back", "lease"), Alive: func(uuid string) bool { return !gone[uuid] }}
}

func next(t *testing.T, d Dir, r Range, uuid, want string) {
	t.Helper()
	if a, err := d.Next(r, uuid); err != nil || a.String() != want {
		t.Fatalf("pod %.8s is given %s (%v), want %s", uuid, a, err, want)
	}
}

// What was given back last is given again last, so that who still sends to a
// pod that ended does not reach the next one.
func TestAddressesAreGivenInTurn(t *testing.T) {
	d, r := directory(t, nil), addresses("10.1.0.1", "10.1.0.4", "10.1.0.1")
	next(t, d, r, podA, "10.1.0.2")
	if err := d.Free(netip.MustParseAddr("10.1.0.2"), podA); err != nil {
		t.Fatal(err)
	}
	next(t, d, r, podA, "10.1.0.3")
	next(t, d, r, podA, "10.1.0.4")
	next(t, d, r, podA, "10.1.0.2")
}

func TestIPv6GoesOnWhereItWas(t *testing.T) {
	d, r := directory(t, nil), addresses("fd01::1", "fd01::ffff:ffff:ffff:ffff", "fd01::1")
	next(t, d, r, podA, "fd01::2")
	next(t, d, addresses("10.1.0.1", "10.1.0.9"), podA, "10.1.0.1")
	next(t, d, r, podB, "fd01::3")
}

// The range in the configuration may be another one than at the last launch.
func TestTheLastAddressMayBeOutsideTheRange(t *testing.T) {
	d := directory(t, nil)
	next(t, d, addresses("10.1.0.200", "10.1.0.210"), podA, "10.1.0.200")
	next(t, d, addresses("10.1.0.1", "10.1.0.9"), podA, "10.1.0.1")
}

func TestFullSaysHowMany(t *testing.T) {
	d, r := directory(t, nil), addresses("10.1.0.1", "10.1.0.3", "10.1.0.1")
	next(t, d, r, podA, "10.1.0.2")
	next(t, d, r, podB, "10.1.0.3")
	a, err := d.Next(r, "cccccccc")
	var full *Full
	if !errors.As(err, &full) || err.Error() != "no address left between 10.1.0.1 and 10.1.0.3: all 2 are in use" {
		t.Errorf("a third pod is given %s (%v)", a, err)
	}
}

// A pod that died with its supervisor has left its leases: they are taken over
// when nothing else is free.
func TestTheAddressOfAPodThatIsGoneIsTakenOver(t *testing.T) {
	gone := map[string]bool{}
	d, r := directory(t, gone), addresses("10.1.0.2", "10.1.0.3")
	next(t, d, r, podA, "10.1.0.2")
	gone[podA] = true
	next(t, d, r, podB, "10.1.0.3")
	next(t, d, r, podB, "10.1.0.2")
	held, err := d.Holders()
	want := map[netip.Addr]string{r.First: podB, r.Last: podB}
	if err != nil || !maps.Equal(held, want) {
		t.Errorf("leases: %v (%v), want %v", held, err, want)
	}
}

func TestAnAddressAskedForThatIsTaken(t *testing.T) {
	gone := map[string]bool{}
	d, a := directory(t, gone), netip.MustParseAddr("10.1.0.9")
	if err := d.This(a, podA); err != nil {
		t.Fatal(err)
	}
	err := d.This(a, podB)
	var taken *Taken
	if !errors.As(err, &taken) || taken.UUID != podA || err.Error() != "the address 10.1.0.9 is in use by pod aaaaaaaa" {
		t.Errorf("it is given twice: %v", err)
	}
	if err := d.Free(a, podB); err != nil {
		t.Error(err)
	}
	if held, _ := d.Holders(); held[a] != podA {
		t.Errorf("a pod gave back what another has: %v", held)
	}
	gone[podA] = true
	if err := d.This(a, podB); err != nil {
		t.Errorf("the pod is gone: %v", err)
	}
}

func TestSweepKeepsTheLiving(t *testing.T) {
	gone := map[string]bool{}
	d, r := directory(t, gone), addresses("10.1.0.1", "10.1.0.9")
	if err := d.Sweep(); err != nil {
		t.Errorf("a network nobody was on: %v", err)
	}
	next(t, d, r, podA, "10.1.0.1")
	next(t, d, r, podB, "10.1.0.2")
	gone[podA] = true
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	held, err := d.Holders()
	if want := map[netip.Addr]string{netip.MustParseAddr("10.1.0.2"): podB}; err != nil || !maps.Equal(held, want) {
		t.Errorf("leases: %v (%v), want %v", held, err, want)
	}
	next(t, d, r, podA, "10.1.0.3") // the sweep did not forget where we were
}

// Many launches at a time, among them such that end and are killed, share one
// small subnet: nobody has the address of another that lives, and none is lost.
func TestNoAddressIsGivenTwiceOrLost(t *testing.T) {
	const takers, rounds = 8, 200
	var mu sync.Mutex
	dead, owner := map[string]bool{}, map[netip.Addr]string{}
	d := Dir{Path: filepath.Join(t.TempDir(), "lease"), Alive: func(uuid string) bool {
		mu.Lock()
		defer mu.Unlock()
		return !dead[uuid]
	}}
	r := addresses("10.1.0.1", "10.1.0.16") // two for each: never full
	var all sync.WaitGroup
	for i := range takers {
		all.Go(func() {
			for n := range rounds {
				uuid := fmt.Sprintf("%08x-%d", i, n)
				a, err := d.Next(r, uuid)
				if err != nil {
					t.Errorf("pod %s: %v", uuid, err)
					return
				}
				mu.Lock()
				if other := owner[a]; other != "" && !dead[other] {
					t.Errorf("%s is given to %s and %s", a, other, uuid)
				}
				owner[a] = uuid
				mu.Unlock()
				if n%3 == 0 {
					mu.Lock()
					dead[uuid] = true // killed: the lease stays
					mu.Unlock()
					continue
				}
				mu.Lock()
				delete(owner, a)
				mu.Unlock()
				if n%3 == 1 {
					err = d.Free(a, uuid)
				} else {
					err = os.Remove(d.Link(a)) // as its supervisor does
				}
				if err != nil {
					t.Errorf("pod %s gives back %s: %v", uuid, a, err)
				}
			}
		})
	}
	all.Wait()
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if held, err := d.Holders(); err != nil || len(held) != 0 {
		t.Errorf("leases nobody has: %v (%v)", held, err)
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil || len(entries) != 1 || entries[0].Name() != ".last4" {
		t.Errorf("left: %v (%v)", entries, err)
	}
}

// While something is done because nobody has an address, nobody gets one; with
// a pod's lease it is not done, with that of a pod that is gone it is.
func TestWhileFree(t *testing.T) {
	alive := map[string]bool{"a": true}
	d := Dir{Path: t.TempDir(), Alive: func(uuid string) bool { return alive[uuid] }}
	r := Range{First: netip.MustParseAddr("10.9.0.2"), Last: netip.MustParseAddr("10.9.0.9")}
	if _, err := d.Next(r, "a"); err != nil {
		t.Fatal(err)
	}
	never := func() error { t.Error("done while a pod has an address"); return nil }
	if free, err := d.WhileFree(never); free || err != nil {
		t.Errorf("free %v, %v", free, err)
	}
	delete(alive, "a")
	got := make(chan error, 1)
	free, err := d.WhileFree(func() error {
		go func() {
			_, err := d.Next(r, "b")
			got <- err
		}()
		select {
		case err := <-got:
			t.Errorf("an address was leased meanwhile: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	})
	if !free || err != nil {
		t.Errorf("free %v, %v", free, err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if free, err := (Dir{Path: filepath.Join(t.TempDir(), "none")}).WhileFree(func() error { return nil }); !free || err != nil {
		t.Errorf("without a directory: %v, %v", free, err)
	}
}
