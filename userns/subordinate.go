// SPDX-License-Identifier: Apache-2.0

package userns

// Ordinary are the maps of a user namespace for an ordinary user: root in it is
// the user, and what subuid(5) gives to the user follows from 1 on.
func Ordinary(id uint32, subordinate []Range) []Map {
	maps := []Map{{Inside: 0, Outside: id, Size: 1}}
	at := uint64(1)
	for _, r := range subordinate {
		if at+uint64(r.Size) > 1<<32-1 || len(maps) == maxMaps {
			break
		}
		maps = append(maps, Map{Inside: uint32(at), Outside: r.Start, Size: r.Size})
		at += uint64(r.Size)
	}
	return maps
}

// maxMaps is how many lines the kernel takes, user_namespaces(7).
const maxMaps = 340

// Map is one line of uid_map or gid_map.
type Map struct{ Inside, Outside, Size uint32 }
