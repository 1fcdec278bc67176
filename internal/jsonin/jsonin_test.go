// SPDX-License-Identifier: Apache-2.0

package jsonin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type inner struct {
	Name  string `json:"name"`
	Count *int8  `json:"count,omitempty"`
}

type outer struct {
	On      bool              `json:"on"`
	Plain   string            // by the name of the field
	Skipped string            `json:"-"`
	Quoted  int               `json:"quoted,string"`
	U       uint16            `json:"u"`
	Float   float64           `json:"float"`
	Bytes   []byte            `json:"bytes"`
	Any     any               `json:"any"`
	One     inner             `json:"one"`
	Many    []inner           `json:"many"`
	Points  *inner            `json:"pointed"`
	Words   map[string]string `json:"words"`
	Deep    map[string][]*inner
	When    time.Time `json:"when"`
	Fixed   [2]int    `json:"fixed"`
	Base
	Other
	*Pointed
	named `json:"named"`
}

type Base struct {
	Own  string `json:"own"`
	U    int    `json:"u"` // hidden
	Both int
	Raw  json.RawMessage
	B    []byte
}

type Other struct {
	Both int // neither
	More string
}

type (
	Pointed struct{ Deep2 string }
	named   struct{ Inside string }
)

// embedding has nothing that is left to encoding/json.
type embedding struct {
	U uint16 `json:"u"`
	Base
	Other
}

// documents are right and wrong in all the ways that are known.
var documents = []string{
	``, ` `, `null`, `{}`, `{} `, `{}x`, `[]`, `{`, `{"on"`, `{"on":`, `{"on":true`, `{"on":true,}`, `{,}`, `{"on" : true , "u" : 7 }`,
	`{"on":1}`, `{"on":tru}`, `{"on":null,"one":null,"many":null,"pointed":null,"words":null,"when":null,"any":null}`,
	`{"ON":true}`, `{"Plain":"a","plain":"b"}`, `{"plain":"b"}`, `{"Skipped":"x","-":"y"}`, `{"quoted":"5"}`, `{"quoted":5}`,
	`{"u":0}`, `{"u":-0}`, `{"u":01}`, `{"u":65535}`, `{"u":65536}`, `{"u":1.0}`, `{"u":1e3}`, `{"u":-1}`, `{"u":"1"}`, `{"u":}`, `{"u":-}`, `{"u":+1}`,
	`{"float":1.5}`, `{"bytes":"aGk="}`, `{"any":{"a":[1]}}`, `{"fixed":[1,2]}`,
	`{"one":{"name":"a","count":-128}}`, `{"one":{"count":128}}`, `{"one":{"name":"a","name":"b"}}`, `{"one":[]}`, `{"one":"x"}`,
	`{"many":[]}`, `{"many":[{"name":"1"},{},{"name":"3"},null,{"name":"5"},{"name":"6"}]}`, `{"many":[{}]`, `{"many":[{},]}`, `{"many":[,]}`,
	`{"many":[{"name":"a"}],"many":[{"count":1}]}`, `{"pointed":{"name":"p"},"pointed":{"count":1}}`,
	`{"words":{"a":"b","c":"d"}}`, `{"words":{"a":"b","a":"c"}}`, `{"words":{"a":null}}`, `{"words":{}}`, `{"Deep":{"x":[{"name":"n"},null]}}`,
	`{"Plain":"\"\\\/\b\f\n\r\t\u0041\u00e4\u20ac"}`, `{"Plain":"\ud83d\ude00"}`, `{"Plain":"\ud83d"}`, `{"Plain":"\u00"}`, `{"Plain":"\u+123"}`, `{"Plain":"\x"}`,
	`{"Plain":"ä€😀"}`, "{\"Plain\":\"\xff\"}", "{\"Plain\":\"\\n\xff\"}", "{\"Plain\":\"\n\"}", "{\"Plain\":\"\\t\n\"}", "{\"Plain\":\"\x7f\"}", `{"Plain":"`, `{"Plain":"\`,
	`{"when":"2026-01-02T03:04:05.6+01:00"}`, `{"when":"yesterday"}`, `{"when":7}`,
	`{"x":[1,-2,3.5,1e9,-0.1E-3,"s","\u0000",true,false,null,{"y":{}},[]]}`, `{"x":[01]}`, `{"x":1.}`, `{"x":.5}`, `{"x":-}`, `{"x":1e}`, `{"x":nul}`, `{"x":[}`, `{"x":{"a"}}`,
	`{"own":"x","u":3}`, `{"Both":1}`, `{"OWN":"x"}`, `{"own":"x","own":"y"}`, `{"Raw":{"a": [1, 2]},"More":"m"}`, `{"B":"aGk="}`, `{"B":"aG\nk="}`, `{"B":"aGk"}`, `{"B":""}`, `{"B":null}`, `{"B":[1,2]}`,
	`{"Deep2":"x"}`, `{"named":{"Inside":"x"}}`, `{"Inside":"x"}`, `{"Base":{"own":"x"}}`,
	"\ufeff{}", "{\"\u212aey\":1}", `{"One":{"name":"K"}}`,
}

// Guards: what is read fast is what encoding/json reads, and its errors are
// the ones a user sees.
func same[T any](t *testing.T, document string) {
	t.Helper()
	var want, got T
	wantErr, gotErr := json.Unmarshal([]byte(document), &want), Unmarshal([]byte(document), &got)
	if (wantErr == nil) != (gotErr == nil) || wantErr != nil && wantErr.Error() != gotErr.Error() {
		t.Errorf("%s: error %v, encoding/json says %v", document, gotErr, wantErr)
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s:\n got %+v\nwant %+v", document, got, want)
	}
}

func TestReadsAsEncodingJSON(t *testing.T) {
	for _, document := range documents {
		same[outer](t, document)
		same[embedding](t, document)
		same[specs.Spec](t, document)
	}
}

// Guards: the bundles of our own tests take the fast way, or it is none.
func TestBundlesNeedNoEncodingJSON(t *testing.T) {
	files, err := filepath.Glob("../../stage1/launch/testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	bundles := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		same[specs.Spec](t, string(b))
		var spec specs.Spec
		if json.Unmarshal(b, &spec) != nil {
			continue
		}
		d := decoder{b: b}
		if !d.value(reflect.ValueOf(&specs.Spec{}).Elem(), 0) {
			t.Errorf("%s: left to encoding/json at byte %d", name, d.at)
		}
		bundles++
	}
	if bundles == 0 {
		t.Error("no file is a bundle")
	}
}

func TestAddsToWhatIsThere(t *testing.T) {
	v := outer{Plain: "kept", On: true}
	if err := Unmarshal([]byte(`{"on":false}`), &v); err != nil || v.Plain != "kept" || v.On {
		t.Errorf("%+v, %v", v, err)
	}
	if Unmarshal([]byte(`{}`), v) == nil || Unmarshal([]byte(`{}`), nil) == nil {
		t.Error("decoded into what is no pointer")
	}
}

func FuzzReadsAsEncodingJSON(f *testing.F) {
	for _, document := range documents {
		f.Add(document)
	}
	f.Fuzz(func(t *testing.T, document string) {
		same[outer](t, document)
		same[embedding](t, document)
		same[specs.Spec](t, document)
	})
}
