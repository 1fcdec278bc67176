// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnsupported means that the kernel has no nf_tables, or none with tables
// that belong to a socket (Linux 5.12), or lacks an expression of ours.
var ErrUnsupported = errors.New("this kernel has no nftables tables that belong to a socket (Linux 5.12 with nf_tables, nft_nat, nft_masq, nft_ct and nft_fib_inet)")

// ErrExists means that somebody has a table of that name.
var ErrExists = errors.New("a table of that name exists")

// Open makes the table in the calling thread's network namespace. It is there
// as long as the returned socket, or a copy of it, is open.
func Open(t Table) (*os.File, error) {
	batch, err := t.Messages()
	if err != nil {
		return nil, err
	}
	fd, err := socket()
	if err != nil {
		return nil, fmt.Errorf("make nftables table %s: %w", t.Name, err)
	}
	owner := os.NewFile(uintptr(fd), "nftables table "+t.Name)
	if err := transact(fd, batch); err != nil {
		_ = owner.Close()
		return nil, fmt.Errorf("make nftables table %s: %w", t.Name, err)
	}
	return owner, nil
}

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err == unix.EPROTONOSUPPORT || err == unix.EAFNOSUPPORT {
		return -1, ErrUnsupported
	}
	if err != nil {
		return -1, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind netlink socket: %w", err)
	}
	return fd, nil
}

// transact sends a batch and reads its answer, which the kernel has queued by
// the time the batch is sent.
func transact(fd int, batch []byte) error {
	if len(batch) > 64<<10 {
		if err := room(fd, len(batch)); err != nil {
			return err
		}
	}
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(batch), err)
	}
	buf := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return fmt.Errorf("read the kernel's answer: %w", err)
	}
	return answer(buf[:n], batch)
}

// room lets a socket send and be answered at once whatever one transaction is.
func room(fd, size int) error {
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 2*size); err != nil {
			return fmt.Errorf("make room for %d bytes: %w", size, err)
		}
	}
	return nil
}

// answer is the first error the kernel names.
func answer(got, batch []byte) error {
	const errorAt = unix.SizeofNlMsghdr
	if len(got) < errorAt+4 || binary.NativeEndian.Uint16(got[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is malformed")
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(got[errorAt:])))
	if errno == 0 {
		return nil
	}
	kind := kindOf(batch, binary.NativeEndian.Uint32(got[8:]))
	switch {
	case errno == unix.EOPNOTSUPP, errno == unix.EINVAL && kind == unix.NFT_MSG_NEWTABLE, errno == unix.ENOENT:
		// Until 5.12 a flag that is not known was EINVAL; an expression whose
		// module is not there is ENOENT.
		return fmt.Errorf("%w (%s: %w)", ErrUnsupported, what(kind), errno)
	case (errno == unix.EEXIST || errno == unix.EPERM) && kind == unix.NFT_MSG_NEWTABLE:
		return ErrExists // EPERM: it is another socket's; without privilege the batch as a whole is refused
	case errno == unix.EPERM:
		return fmt.Errorf("%s: %w: it takes CAP_NET_ADMIN", what(kind), errno)
	}
	return fmt.Errorf("%s: %w", what(kind), errno)
}

// kindOf is the kind of the batch's message with a sequence number; -1 is the
// transaction as a whole.
func kindOf(batch []byte, sequence uint32) int {
	for len(batch) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(batch)
		if size < unix.SizeofNlMsghdr {
			break // none of ours
		}
		if kind := binary.NativeEndian.Uint16(batch[4:]); binary.NativeEndian.Uint32(batch[8:]) == sequence && kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
			return int(kind & 0xff)
		}
		batch = batch[min((int(size)+3)&^3, len(batch)):]
	}
	return -1
}

func what(kind int) string {
	switch kind {
	case unix.NFT_MSG_NEWTABLE:
		return "add the table"
	case unix.NFT_MSG_DELTABLE:
		return "delete the table"
	case unix.NFT_MSG_NEWCHAIN:
		return "add a chain"
	case unix.NFT_MSG_NEWRULE:
		return "add a rule"
	}
	return "commit"
}
