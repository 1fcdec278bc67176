// SPDX-License-Identifier: Apache-2.0

// Package bundle turns an image's configuration and what a user asked for
// into one OCI runtime specification. It is pure: what it must know of the
// host and of the image's files comes in as values, so the same input gives
// the same bytes, and every decision has a golden.
package bundle
