// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	sha256B  = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
	ociType  = ispec.MediaTypeImageManifest
	ociIndex = ispec.MediaTypeImageIndex

	configJSON = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + sha256A + `","size":7}`
	layerJSON  = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + sha256B + `","size":9}`
	entryJSON  = `{"mediaType":"` + ociType + `","digest":"` + sha256A + `","size":7,"platform":{"os":"linux","architecture":"amd64"}}`

	goodManifest = `{"schemaVersion":2,"mediaType":"` + ociType + `","config":` + configJSON + `,"layers":[` + layerJSON + `]}`
	goodIndex    = `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + entryJSON + `]}`
)

func TestParseManifest(t *testing.T) {
	docker := strings.NewReplacer(
		ociType, MediaTypeDockerManifest,
		ispec.MediaTypeImageConfig, MediaTypeDockerConfig,
		ispec.MediaTypeImageLayerGzip, MediaTypeDockerLayerGzip,
	).Replace(goodManifest)
	for name, c := range map[string]struct{ doc, said, want string }{
		"oci":                         {goodManifest, ociType, ociType},
		"unsaid":                      {goodManifest, "", ociType},
		"content type with parameter": {goodManifest, "Application/vnd.oci.image.manifest.v1+JSON; charset=utf-8", ociType},
		"no member":                   {strings.Replace(goodManifest, `"mediaType":"`+ociType+`",`, "", 1), ociType, ociType},
		"neither":                     {strings.Replace(goodManifest, `"mediaType":"`+ociType+`",`, "", 1), "", ociType},
		"docker":                      {docker, MediaTypeDockerManifest, MediaTypeDockerManifest},
		"unknown member":              {`{"x":{"Layers":[1]},` + goodManifest[1:], ociType, ociType},
		"white space":                 {" \n" + goodManifest + "\r\n\t ", ociType, ociType},
	} {
		m, err := ParseManifest([]byte(c.doc), c.said)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.MediaType != c.want || len(m.Layers) != 1 || m.Config.Size != 7 || m.SchemaVersion != 2 {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

func TestParseManifest_refuses(t *testing.T) {
	swap := func(old, replacement string) string {
		if !strings.Contains(goodManifest, old) {
			t.Fatalf("%q is not in the manifest", old)
		}
		return strings.Replace(goodManifest, old, replacement, 1)
	}
	many := strings.Repeat(layerJSON+",", MaxLayers) + layerJSON
	for name, c := range map[string]struct{ doc, says string }{
		"empty":             {"", "not a JSON object"},
		"array":             {"[]", "not a JSON object"},
		"truncated":         {goodManifest[:100], "missing at byte"},
		"trailing":          {goodManifest + "{}", "data after the end"},
		"not utf-8":         {swap(`"size":9`, `"size":9,"x":"`+"\xff"+`"`), "not UTF-8"},
		"bad escape":        {swap(`"size":9`, `"size":9,"\x":1`), "string missing"},
		"comma":             {swap(`"size":9`, `"size":9,`), "a value after the comma"},
		"schema 0":          {swap(`"schemaVersion":2,`, ""), "schemaVersion is not 2"},
		"schema 3":          {swap(`"schemaVersion":2`, `"schemaVersion":3`), "schemaVersion is not 2"},
		"version text":      {swap(`"schemaVersion":2`, `"schemaVersion":"2"`), "decode JSON"},
		"no config":         {swap(`"config":`, `"conf":`), "neither config and layers nor manifests"},
		"null config":       {swap(configJSON, `null`), "config: digest"},
		"no layers":         {swap(layerJSON, ``), "no layers"},
		"null layers":       {swap(`[`+layerJSON+`]`, `null`), "no layers"},
		"negative size":     {swap(`"size":9`, `"size":-1`), "layers[0]: size -1 is negative"},
		"huge size":         {swap(`"size":9`, `"size":9223372036854775807`), "at most 1099511627776"},
		"overflowing size":  {swap(`"size":9`, `"size":9223372036854775808`), "decode JSON"},
		"fractional size":   {swap(`"size":9`, `"size":9.5`), "decode JSON"},
		"huge config":       {swap(`"size":7`, `"size":4194305`), "config: size 4194305"},
		"too many layers":   {swap(layerJSON, many), "513 layers"},
		"two sizes":         {swap(layerJSON, layerJSON+","+strings.Replace(layerJSON, `:9`, `:8`, 1)), "two sizes, 9 and 8"},
		"artifact":          {swap("application/vnd.oci.image.config.v1+json", "application/vnd.oci.empty.v1+json"), "an artifact of another kind"},
		"odd layer":         {swap("application/vnd.oci.image.layer.v1.tar+gzip", "application/x"), "not that of a layer"},
		"encrypted layer":   {swap("tar+gzip", "tar+gzip+encrypted"), "encrypted layers"},
		"no layer type":     {swap("application/vnd.oci.image.layer.v1.tar+gzip", ""), "no media type"},
		"malformed type":    {swap("application/vnd.oci.image.layer.v1.tar+gzip", "a b/c"), "malformed"},
		"wrong data":        {swap(`"size":9`, `"size":1,"data":"YQ=="`), "data: is not what the digest says"},
		"bad subject":       {swap(`"config"`, `"subject":{"digest":"x"},"config"`), "subject: digest"},
		"docker, no member": {swap(`"mediaType":"`+ociType+`",`, ""), "no mediaType member"},
		"blobs":             {swap(`"config"`, `"blobs":[],"config"`), "withdrawn"},
		"deep":              {swap(`"config"`, `"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`,"config"`), "nested deeper"},
		"many values":       {swap(`"config"`, `"x":[`+strings.Repeat("1,", maxValues)+`1],"config"`), "JSON values"},
		"long":              {goodManifest + strings.Repeat(" ", MaxManifest), "at most 4194304 are read"},
	} {
		said := ociType
		if strings.HasPrefix(name, "docker") {
			said = MediaTypeDockerManifest
		}
		_, err := ParseManifest([]byte(c.doc), said)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// One document must not be a manifest to one reader and an index to the other.
func TestCVE_2021_41190_manifestAndIndexAreNotConfused(t *testing.T) {
	both := strings.Replace(goodManifest, `"config"`, `"manifests":[`+entryJSON+`],"config"`, 1)
	for name, c := range map[string]struct{ doc, said, says string }{
		"both":                       {both, ociType, "members of both"},
		"both, said to be an index":  {both, ociIndex, "members of both"},
		"null manifests":             {strings.Replace(both, "["+entryJSON+"]", "null", 1), ociType, "members of both"},
		"config in index":            {strings.Replace(goodIndex, `"manifests"`, `"config":{},"manifests"`, 1), ociIndex, "members of both"},
		"manifest served as index":   {goodManifest, ociIndex, "but says of itself"},
		"index served as manifest":   {goodIndex, ociType, "but says of itself"},
		"manifest that says index":   {strings.Replace(goodManifest, ociType, ociIndex, 1), "", "means: index"},
		"index that says manifest":   {strings.Replace(goodIndex, ociIndex, ociType, 1), ociType, "means: manifest"},
		"manifest without member":    {strings.Replace(goodManifest, `"mediaType":"`+ociType+`",`, "", 1), ociIndex, "means: index"},
		"generic content type":       {goodManifest, "application/json", "but says of itself"},
		"Manifests":                  {strings.Replace(both, `"manifests"`, `"Manifests"`, 1), ociType, "could be taken for it"},
		"Layers in index":            {strings.Replace(goodIndex, `"manifests"`, `"Layers":[],"manifests"`, 1), ociIndex, "could be taken for it"},
		"layerſ in index":            {strings.Replace(goodIndex, `"manifests"`, `"layerſ":[],"manifests"`, 1), ociIndex, "could be taken for it"},
		"escaped layers in index":    {strings.Replace(goodIndex, `"manifests"`, `"\u006cayers":[],"manifests"`, 1), ociIndex, "members of both"},
		"MediaType":                  {strings.Replace(goodManifest, `"config"`, `"MediaType":"`+ociIndex+`","config"`, 1), ociType, "could be taken for it"},
		"two layers members":         {strings.Replace(goodManifest, `"config"`, `"layers":[],"config"`, 1), ociType, `member "layers" appears twice`},
		"two digests":                {strings.Replace(goodManifest, `"size":9`, `"size":9,"digest":"`+sha256A+`"`, 1), ociType, "layers[0]: member \"digest\" appears twice"},
		"two digests by escape":      {strings.Replace(goodManifest, `"size":9`, `"size":9,"dig\u0065st":"`+sha256A+`"`, 1), ociType, "appears twice"},
		"Digest":                     {strings.Replace(goodManifest, `"size":9`, `"size":9,"Digest":"`+sha256A+`"`, 1), ociType, "could be taken for it"},
		"two of an unknown member":   {strings.Replace(goodManifest, `"config"`, `"x":{"a":1,"a":2},"config"`, 1), ociType, "appears twice"},
		"two among many annotations": {strings.Replace(goodManifest, `"config"`, `"annotations":{`+manyMembers(40)+`,"k7":""},"config"`, 1), ociType, "appears twice"},
	} {
		for what, parse := range map[string]func() error{
			"DetectKind":    func() error { _, err := DetectKind([]byte(c.doc), c.said); return err },
			"ParseManifest": func() error { _, err := ParseManifest([]byte(c.doc), c.said); return err },
			"ParseIndex":    func() error { _, err := ParseIndex([]byte(c.doc), c.said); return err },
		} {
			if err := parse(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %s: %v, want %q", name, what, err, c.says)
			}
		}
	}
	if _, err := ParseManifest([]byte(goodIndex), ociIndex); err == nil {
		t.Error("ParseManifest accepts an index")
	}
	if _, err := ParseIndex([]byte(goodManifest), ociType); err == nil {
		t.Error("ParseIndex accepts a manifest")
	}
}

func TestCVE_2020_15157_contentKeptElsewhereIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ doc, says string }{
		"layer urls":  {strings.Replace(goodManifest, `"size":9`, `"size":9,"urls":["https://evil.example/"]`, 1), "layers[0]: urls"},
		"config urls": {strings.Replace(goodManifest, `"size":7`, `"size":7,"urls":["https://evil.example/"]`, 1), "config: urls"},
		"docker foreign layer": {strings.Replace(goodManifest, "application/vnd.oci.image.layer.v1.tar+gzip",
			"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1), "foreign layers"},
		"oci foreign layer": {strings.Replace(goodManifest, "image.layer.v1", "image.layer.nondistributable.v1", 1), "foreign layers"},
	} {
		if _, err := ParseManifest([]byte(c.doc), ociType); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	doc := strings.Replace(goodIndex, `"size":7`, `"size":7,"urls":["https://evil.example/"]`, 1)
	if _, err := ParseIndex([]byte(doc), ociIndex); err == nil || !strings.Contains(err.Error(), "manifests[0]: urls") {
		t.Errorf("index: %v", err)
	}
}

func TestCVE_2024_3727_digestsInDocumentsAreChecked(t *testing.T) {
	for _, bad := range []string{"../../../x", "sha256:" + hex64 + "/../x", "sha1:" + hex64[:40], strings.ToUpper(sha256A), ""} {
		m := strings.Replace(goodManifest, sha256B, bad, 1)
		if _, err := ParseManifest([]byte(m), ociType); err == nil || !strings.Contains(err.Error(), "layers[0]: digest") {
			t.Errorf("layer %q: %v", bad, err)
		}
		m = strings.Replace(goodManifest, sha256A, bad, 1)
		if _, err := ParseManifest([]byte(m), ociType); err == nil || !strings.Contains(err.Error(), "config: digest") {
			t.Errorf("config %q: %v", bad, err)
		}
		x := strings.Replace(goodIndex, sha256A, bad, 1)
		if _, err := ParseIndex([]byte(x), ociIndex); err == nil || !strings.Contains(err.Error(), "manifests[0]: digest") {
			t.Errorf("index %q: %v", bad, err)
		}
	}
}

// A manifest without layers made a VM runtime plug a disk of the host in.
func TestCVE_2026_24054_imageWithoutLayersIsRefused(t *testing.T) {
	doc := strings.Replace(goodManifest, layerJSON, "", 1)
	if _, err := ParseManifest([]byte(doc), ociType); err == nil || !strings.Contains(err.Error(), "no layers") {
		t.Errorf("ParseManifest: %v", err)
	}
	if _, err := ParseArtifact([]byte(doc), ociType); err != nil {
		t.Errorf("an artifact may have none: %v", err)
	}
}

func TestDetectKind_refusesSchema1ByName(t *testing.T) {
	old := `{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[{"blobSum":"` + sha256A + `"}],"history":[],"signatures":[]}`
	for name, c := range map[string]struct{ doc, said string }{
		"signed":   {old, "application/vnd.docker.distribution.manifest.v1+prettyjws"},
		"unsigned": {old, "application/vnd.docker.distribution.manifest.v1+json"},
		"unsaid":   {old, ""},
		"as json":  {old, "application/json"},
		"by type":  {goodManifest, "application/vnd.docker.distribution.manifest.v1+json"},
		"in part":  {strings.Replace(goodManifest, `"config"`, `"fsLayers":null,"config"`, 1), ociType},
	} {
		if _, err := DetectKind([]byte(c.doc), c.said); err == nil || !strings.Contains(err.Error(), "schema 1 is not supported") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseIndex(t *testing.T) {
	list := strings.NewReplacer(ociIndex, MediaTypeDockerList, ociType, MediaTypeDockerManifest).Replace(goodIndex)
	for name, c := range map[string]struct{ doc, said string }{
		"oci":         {goodIndex, ociIndex},
		"docker list": {list, MediaTypeDockerList},
		"no member":   {strings.Replace(goodIndex, `"mediaType":"`+ociIndex+`",`, "", 1), ""},
		"empty":       {strings.Replace(goodIndex, entryJSON, "", 1), ociIndex},
	} {
		if _, err := ParseIndex([]byte(c.doc), c.said); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	doc := strings.Replace(goodIndex, `"size":7`, `"size":4194305`, 1)
	if _, err := ParseIndex([]byte(doc), ociIndex); err == nil {
		t.Error("a manifest of more than 4 MiB is accepted")
	}
}

func TestParseLayout(t *testing.T) {
	for name, doc := range map[string]string{
		"full":    goodIndex,
		"umoci":   `{"schemaVersion":2,"manifests":null}`,
		"empty":   `{"schemaVersion":2,"manifests":[]}`,
		"no list": `{"schemaVersion":2}`,
	} {
		if _, err := ParseLayout([]byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, doc := range map[string]string{
		"version":  `{"schemaVersion":1,"manifests":[]}`,
		"type":     strings.Replace(goodIndex, ociIndex, ociType, 1),
		"digest":   strings.Replace(goodIndex, sha256A, "sha256:../x", 1),
		"torn":     goodIndex[:60],
		"trailing": goodIndex + goodIndex,
	} {
		if _, err := ParseLayout([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func manyMembers(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"k%d":""`, i)
	}
	return strings.Join(names, ",")
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest), ociType)
	f.Add([]byte(goodIndex), "")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "")
	f.Add([]byte(strings.Replace(goodManifest, `"config"`, `"Layers":[],"config"`, 1)), ociType)
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		m, err := ParseManifest(b, mediaType)
		if err != nil {
			return
		}
		if len(m.Layers) == 0 || KindOf(m.MediaType) != KindManifest {
			t.Fatalf("accepted %+v", m)
		}
		for _, d := range append(m.Layers, m.Config) {
			if ValidDigest(d.Digest) != nil || d.Size < 0 || len(d.URLs) > 0 {
				t.Fatalf("accepted %+v", d)
			}
		}
		if kind, err := DetectKind(b, mediaType); err != nil || kind != KindManifest {
			t.Fatalf("DetectKind: %v, %v", kind, err)
		}
		if _, err := ParseIndex(b, mediaType); err == nil {
			t.Fatal("is an index too")
		}
		sameToStrictReader(t, b)
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		m2, err := ParseManifest(again, m.MediaType)
		if err != nil || m2.Config.Digest != m.Config.Digest || len(m2.Layers) != len(m.Layers) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(goodIndex), ociIndex)
	f.Add([]byte(goodManifest), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), "")
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		if x, err := ParseLayout(b); err == nil {
			for _, d := range x.Manifests {
				if ValidDigest(d.Digest) != nil || d.Size < 0 {
					t.Fatalf("accepted %+v", d)
				}
			}
		}
		x, err := ParseIndex(b, mediaType)
		if err != nil {
			return
		}
		if KindOf(x.MediaType) != KindIndex {
			t.Fatalf("accepted %+v", x)
		}
		sameToStrictReader(t, b)
		if d, err := Select(x, HostPlatform()); err == nil && KindOf(d.MediaType) != KindManifest {
			t.Fatalf("selected %+v", d)
		}
	})
}

// sameToStrictReader checks that a reader that matches names exactly sees what
// encoding/json, which does not, has seen: the point of the walker.
func sameToStrictReader(t *testing.T, b []byte) {
	t.Helper()
	var exact map[string]json.RawMessage
	if err := json.Unmarshal(b, &exact); err != nil {
		t.Fatal(err)
	}
	var loose document
	if err := json.Unmarshal(b, &loose); err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]any{"config": &loose.Config, "layers": &loose.Layers, "manifests": &loose.Manifests} {
		seen := reflect.New(reflect.TypeOf(into).Elem())
		if raw, ok := exact[name]; ok {
			if err := json.Unmarshal(raw, seen.Interface()); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(seen.Interface(), into) {
			t.Fatalf("%s is %+v to one reader, %+v to another", name, seen, into)
		}
	}
}

func BenchmarkParseManifest(b *testing.B) {
	doc := []byte(strings.Replace(goodManifest, layerJSON, strings.Repeat(layerJSON+",", 7)+layerJSON, 1))
	for b.Loop() {
		if _, err := ParseManifest(doc, ociType); err != nil {
			b.Fatal(err)
		}
	}
}
