// SPDX-License-Identifier: Apache-2.0

// Package volume keeps named volumes: directories that outlive the pods that
// mount them. Each stands under its name and is locked, where that is needed,
// by itself; who uses it is said by the pods' own records.
package volume
