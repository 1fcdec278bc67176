// SPDX-License-Identifier: Apache-2.0

package jsonout

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"net/netip"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func same(t *testing.T, v any) {
	t.Helper()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	wantErr := enc.Encode(v)
	got, err := Marshal(v)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error %v, encoding/json: %v", err, wantErr)
	}
	if err == nil && !bytes.Equal(got, bytes.TrimSuffix(want.Bytes(), []byte("\n"))) {
		t.Fatalf("got  %s\nwant %s", got, want.Bytes())
	}
}

type inner struct {
	A int `json:"a,omitempty"`
}

type odd struct {
	inner
	Text   string            `json:"text"`
	Bytes  []byte            `json:"bytes"`
	Quoted int               `json:"quoted,string"`
	Map    map[string]any    `json:"map"`
	None   map[string]string `json:"none"`
}

type plain struct {
	Time    time.Time       `json:"time"`
	Never   time.Time       `json:"never,omitzero"`
	Empty   time.Time       `json:"empty,omitempty"`
	Addr    netip.Addr      `json:"addr"`
	PAddr   *netip.Addr     `json:"paddr"`
	Raw     json.RawMessage `json:"raw,omitempty"`
	Hidden  string          `json:"-"`
	Dash    string          `json:"-,"` //nolint:staticcheck // the odd name is what is tested
	NoTag   []string
	Numbers map[int]string `json:"numbers"`
	Any     any            `json:"any"`
	Float   float64        `json:"float,omitempty"`
	Array   [2]bool        `json:"array,omitempty"`
	private int
}

// weighted has embedded structs.
func weighted() specs.LinuxResources {
	weight := uint16(7)
	d := specs.LinuxWeightDevice{Weight: &weight}
	d.Major = 8
	return specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{d}}}
}

func TestSameAsTheStandardLibrary(t *testing.T) {
	addr := netip.MustParseAddr("::1")
	for _, v := range []any{
		nil, true, -1, uint8(3), "a<b>&\"\\\n\x00é\u2028\x7f\xff",
		[]string{},
		[]string(nil),
		map[string]int{"b": 1, "a": 2},
		&plain{
			Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Addr: addr, PAddr: &addr,
			Raw: json.RawMessage(`{"x": "<"}`), Hidden: "h", Dash: "d", NoTag: []string{"x"},
			Numbers: map[int]string{10: "b", 9: "a"}, Any: []any{1, "x", nil}, Float: 1.5, private: 1,
		},
		plain{},
		plain{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		odd{inner: inner{1}, Text: "x", Bytes: []byte("abc"), Quoted: 3, Map: map[string]any{"k": map[string]any{"z": 1.25}}},
		struct{ C chan int }{},
		weighted(),
	} {
		same(t, v)
	}
}

// Random values of the types we write; deep ones nearly always have nil
// pointers and full ones at the same time.
func TestSameForBundlesAndManifests(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for _, typ := range []reflect.Type{
		reflect.TypeFor[specs.Process](), reflect.TypeFor[specs.LinuxSeccomp](), reflect.TypeFor[specs.Mount](),
		reflect.TypeFor[specs.Hooks](), reflect.TypeFor[specs.LinuxMemory](), reflect.TypeFor[ispec.Manifest](), reflect.TypeFor[ispec.Index](),
	} {
		for range 20 {
			v, ok := quick.Value(typ, random)
			if !ok {
				continue
			}
			same(t, v.Interface())
		}
	}
}
