// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantryrun/gantry/fetch/wire"
	"github.com/gantryrun/gantry/internal/bounded"
)

// credentials is the one credential for a registry and where it was looked
// for, for the message of a 401.
type credentials struct {
	wire.Credential
	Looked []string // files that exist, in order
	File   string   // where it was found; "" for none
}

// authFile is what docker and podman write.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

const maxAuthFile = 1 << 20

// authPaths are the files looked at, first match wins. A file named by the
// user is the only one.
func authPaths(named string) []string {
	if named != "" {
		return []string{named}
	}
	if v := os.Getenv("REGISTRY_AUTH_FILE"); v != "" {
		return []string{v}
	}
	var paths []string
	if v := os.Getenv("XDG_RUNTIME_DIR"); v != "" {
		paths = append(paths, filepath.Join(v, "containers/auth.json"))
	} else { // as for root, and for whoever comes by sudo
		paths = append(paths, fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid()))
	}
	home, _ := os.UserHomeDir() // without one there is nothing to look at
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		paths = append(paths, filepath.Join(config, "containers/auth.json"))
	}
	if v := os.Getenv("DOCKER_CONFIG"); v != "" {
		return append(paths, filepath.Join(v, "config.json"))
	}
	if home != "" {
		paths = append(paths, filepath.Join(home, ".docker/config.json"))
	}
	return paths
}

// findCredentials looks for what belongs to exactly this host, and within it
// the most specific repository prefix, as podman writes them.
func findCredentials(ctx context.Context, named, host, repository string) (credentials, error) {
	var out credentials
	for _, path := range authPaths(named) {
		b, err := bounded.File(path, maxAuthFile)
		if errors.Is(err, fs.ErrNotExist) && named == "" {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("read credentials: %w", err)
		}
		out.Looked = append(out.Looked, path)
		var f authFile
		if err := json.Unmarshal(b, &f); err != nil {
			return out, fmt.Errorf("read credentials of %s: %w", path, err)
		}
		c, found, err := f.find(ctx, host, repository)
		var p *Problem
		if errors.As(err, &p) {
			return out, err
		}
		if err != nil {
			return out, fmt.Errorf("read credentials of %s: %w", path, err)
		}
		if found {
			out.Credential, out.File = c, path
			return out, nil
		}
	}
	return out, nil
}

// find returns the entry for the host. Docker Hub has several spellings. A
// helper for the host comes first, as in other tools; the store for all hosts
// is asked where the file itself holds nothing.
func (f authFile) find(ctx context.Context, host, repository string) (wire.Credential, bool, error) {
	store := helper{name: f.CredsStore, server: host, host: host}
	if host == "docker.io" {
		store.server = "https://index.docker.io/v1/" // what docker login tells its helpers
	}
	for _, key := range authKeys(host, repository) {
		if name := f.CredHelpers[key]; name != "" {
			h := helper{name: name, server: store.server, host: host, named: true}
			return h.ask(ctx)
		}
		// Two spellings of one key: always the same one wins.
		for _, have := range slices.Sorted(maps.Keys(f.Auths)) {
			e := f.Auths[have]
			if normalKey(have) != key {
				continue
			}
			c, err := e.credential()
			if err != nil {
				return c, false, fmt.Errorf("entry %s: %w", have, err)
			}
			if !c.Empty() {
				return c, true, nil
			}
			store.named = true
		}
	}
	if f.CredsStore == "" {
		return wire.Credential{}, false, nil
	}
	c, found, err := store.ask(ctx)
	if errors.Is(err, errNoHelper) {
		err = nil
	}
	return c, found, err
}

// authKeys are the keys that may hold our credential, most specific first.
func authKeys(host, repository string) []string {
	hosts := []string{host}
	if host == "docker.io" {
		hosts = append(hosts, "index.docker.io", "registry-1.docker.io")
	}
	var keys []string
	for path := repository; path != "" && path != "."; path = parent(path) {
		keys = append(keys, host+"/"+path)
	}
	return append(keys, hosts...)
}

func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}

// normalKey brings what is written by various tools (https://index.docker.io/v1/,
// ghcr.io, https://registry:5000) to host[/path].
func normalKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	host, path, _ := strings.Cut(key, "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	host = strings.ToLower(host)
	if path == "" {
		return host
	}
	return host + "/" + path
}

func (e authEntry) credential() (wire.Credential, error) {
	c := wire.Credential{
		Username: e.Username, Password: e.Password,
		IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
	}
	if e.Auth == "" {
		return c, nil
	}
	b, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return c, errors.New("auth is not base64")
	}
	user, password, found := strings.Cut(string(b), ":")
	if !found || user == "" {
		return c, errors.New("auth is not user:password")
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}
