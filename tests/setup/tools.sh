# SPDX-License-Identifier: Apache-2.0
# Sourced. Go tools by exact version, built once into the cache.
# shellcheck shell=bash

cache=${GANTRY_TEST_CACHE:-$HOME/.cache/gantry-test}

# go_tool NAME MODULE VERSION [PACKAGE] puts NAME on PATH by way of the cache.
go_tool() {
	local name=$1 module=$2 version=$3 package=${4:-$2} dir
	dir=$cache/bin
	mkdir -p "$dir"
	if [ ! -x "$dir/$name" ] || [ "$(go version -m "$dir/$name" 2>/dev/null | awk -v m="$module" '$1 == "mod" && $2 == m {print $3}')" != "$version" ]; then
		echo "setup: building $name $version, once"
		GOFLAGS= CGO_ENABLED=0 GOBIN=$dir go install "$package@$version" </dev/null
	fi
}

tools_lint() {
	go_tool golangci-lint github.com/golangci/golangci-lint/v2 v2.15.0 github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	go_tool govulncheck golang.org/x/vuln v1.1.4 golang.org/x/vuln/cmd/govulncheck
}

tools_interop() {
	go_tool crane github.com/google/go-containerregistry v0.22.1 github.com/google/go-containerregistry/cmd/crane
	[ -x "$cache/bin/cosign" ] || echo "setup: cosign takes about twelve minutes on two cores, once"
	go_tool cosign github.com/sigstore/cosign/v3 v3.1.3 github.com/sigstore/cosign/v3/cmd/cosign
}

# tools_engines installs the engines of Debian, and builds the client of CRI into
# the cache, which Debian does not have.
tools_engines() {
	apt_need podman containerd runc crun conmon catatonit fuse-overlayfs uidmap slirp4netns netavark \
		containernetworking-plugins iptables iproute2 || return 1
	local from
	from=$(go -C tests/engines/crictl list -m -f '{{.Version}}' sigs.k8s.io/cri-tools)
	if [ ! -x "$cache/crictl-$from/crictl" ]; then
		echo "setup: building crictl $from, once (two minutes)"
		GOFLAGS= CGO_ENABLED=0 go -C tests/engines/crictl build -trimpath -ldflags '-s -w' \
			-o "$cache/crictl-$from/" sigs.k8s.io/cri-tools/cmd/crictl </dev/null || return 1
	fi
	export PATH=$cache/crictl-$from:$PATH
	local crio
	for crio in "$cache"/crio-*; do # where crio.sh built it
		[ ! -d "$crio" ] || PATH=$crio:$PATH
	done
}

# tools_networks installs Debian's CNI plugins, builds the newest and cnitool into
# the cache, and names their directory in GANTRY_TEST_CNI.
tools_networks() {
	apt_need containernetworking-plugins iptables nftables iproute2 busybox-static aardvark-dns || return 1
	local plugins=github.com/containernetworking/plugins/plugins from=v1.10.0 tool=v1.3.1 p
	local dir=$cache/cni-$from-$tool
	if [ ! -d "$dir" ]; then
		echo "setup: building CNI plugins $from, once"
		rm -rf "$dir.new" && mkdir -p "$dir.new"
		for p in main/bridge main/ptp main/macvlan main/loopback ipam/host-local ipam/static meta/portmap meta/firewall meta/tuning meta/bandwidth; do
			GOFLAGS= CGO_ENABLED=0 GOBIN=$dir.new go install -trimpath -ldflags '-s -w' "$plugins/$p@$from" </dev/null || return 1
		done
		GOFLAGS= CGO_ENABLED=0 GOBIN=$dir.new go install -trimpath -ldflags '-s -w' "github.com/containernetworking/cni/cnitool@$tool" </dev/null || return 1
		mv "$dir.new" "$dir"
	fi
	export GANTRY_TEST_CNI=$dir
}

# tools_conformance builds the validation programs of runtime-tools and sets
# conformance_suite to their directory. The release is older than Go modules, so
# what it is built with is written in a module of its own.
tools_conformance() {
	local module=github.com/opencontainers/runtime-tools from
	from=$(go -C tests/conformance/suite list -m -f '{{.Version}}' $module)
	conformance_suite=$cache/runtime-tools-$from
	[ ! -d "$conformance_suite" ] || return 0
	echo "setup: building the programs of runtime-tools $from, once"
	rm -rf "$conformance_suite.new" && mkdir -p "$conformance_suite.new"
	GOFLAGS= CGO_ENABLED=0 go -C tests/conformance/suite build -trimpath -ldflags '-s -w' -o "$conformance_suite.new/" \
		$module/cmd/runtimetest $module/validation/... </dev/null
	from=$(go -C tests/conformance/suite list -m -f '{{.Dir}}' $module)
	cp "$from"/rootfs-*.tar.gz "$conformance_suite.new/"
	mv "$conformance_suite.new" "$conformance_suite"
}
