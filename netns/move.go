// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Move gives an interface of the calling thread's namespace to another one,
// under the name as, in which "%d" stands for a number that is free. It has its
// permanent global addresses there, and is up. back takes it back as it was,
// for a launch that fails: the other namespace must still be open then.
func Move(to *os.File, name, as string) (back func() error, err error) {
	m := move{name: name, to: to}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	m.up = link.Attrs().RawFlags&unix.IFF_UP != 0
	if m.addresses, err = permanent(h, link); err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	if m.from, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); err != nil {
		return nil, err
	}
	before, err := Inside(to, indexes)
	if err == nil && before[as] != 0 {
		err = unix.EEXIST // the kernel would move it first and then say so
	}
	if err == nil {
		if err = setLink(link.Attrs().Index, to, as); err != nil {
			err = join(err, m.recover(before))
		}
	}
	if err != nil {
		_ = m.from.Close()
		return nil, fmt.Errorf("move interface %s to the container as %s: %w", name, as, err)
	}
	if err := m.arrive(before); err != nil {
		return nil, fmt.Errorf("set up interface %s in the container: %w", as, join(err, m.back()))
	}
	return m.back, nil
}

// move is one interface on its way.
type move struct {
	name      string // where it comes from
	from, to  *os.File
	index     int // in the other namespace
	addresses []netlink.Addr
	up        bool
}

// arrive finds the interface and makes it what it was.
func (m *move) arrive(before map[string]int) error {
	_, err := Inside(m.to, func(h *netlink.Handle) (struct{}, error) {
		link, err := newcomer(h, before)
		if err != nil {
			return struct{}{}, err
		}
		m.index = link.Attrs().Index
		return struct{}{}, dress(h, link, m.addresses, true)
	})
	return err
}

// newcomer is the interface that was not there before.
func newcomer(h *netlink.Handle, before map[string]int) (netlink.Link, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if a := link.Attrs(); before[a.Name] != a.Index {
			return link, nil
		}
	}
	return nil, errors.New("it is not there")
}

// recover brings back what moved although the kernel says that it did not: its
// new name may be refused when it is there.
func (m *move) recover(before map[string]int) error {
	_ = m.arrive(before)
	if m.index == 0 {
		return nil // it stayed
	}
	return m.home()
}

func (m *move) back() error {
	defer m.from.Close()
	return m.home()
}

// home moves it back.
func (m *move) home() error {
	_, err := Inside(m.to, func(*netlink.Handle) (struct{}, error) {
		return struct{}{}, setLink(m.index, m.from, m.name)
	})
	if err != nil {
		return fmt.Errorf("move interface %s back: %w", m.name, err)
	}
	_, err = Inside(m.from, func(h *netlink.Handle) (struct{}, error) {
		link, err := h.LinkByName(m.name)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, dress(h, link, m.addresses, m.up)
	})
	return err
}

// dress gives an interface what it lost on its way.
func dress(h *netlink.Handle, link netlink.Link, addresses []netlink.Addr, up bool) error {
	for _, a := range addresses {
		if err := h.AddrAdd(link, &a); err != nil {
			return fmt.Errorf("add address %s: %w", a.IPNet, err)
		}
	}
	if !up {
		return nil
	}
	return h.LinkSetUp(link)
}

// permanent are the addresses that config-linux.md, Network Devices, has moved.
func permanent(h *netlink.Handle, link netlink.Link) ([]netlink.Addr, error) {
	all, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var kept []netlink.Addr
	for _, a := range all {
		if a.Flags&unix.IFA_F_PERMANENT == 0 || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		// Its label is the name it had, its lifetime is for ever.
		kept = append(kept, netlink.Addr{IPNet: a.IPNet, Peer: a.Peer, Broadcast: a.Broadcast, Flags: a.Flags & unix.IFA_F_NOPREFIXROUTE})
	}
	return kept, nil
}

// setLink moves and renames in one request: the kernel takes the new name also
// where the old one is taken.
func setLink(index int, to *os.File, name string) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to.Fd()))))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func indexes(h *netlink.Handle) (map[string]int, error) {
	links, err := h.LinkList()
	all := map[string]int{}
	for _, link := range links {
		all[link.Attrs().Name] = link.Attrs().Index
	}
	return all, err
}

// Inside runs f in a namespace, on a thread of its own.
func Inside[T any](ns *os.File, f func(*netlink.Handle) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go onThrownAwayThread(func() {
		var r result
		if r.err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); r.err == nil {
			var h *netlink.Handle
			if h, r.err = netlink.NewHandle(unix.NETLINK_ROUTE); r.err == nil {
				r.value, r.err = f(h)
				h.Close()
			}
		}
		done <- r
	})
	r := <-done
	return r.value, r.err
}

func join(first, second error) error {
	if second == nil {
		return first
	}
	return fmt.Errorf("%w; %w", first, second)
}
