// SPDX-License-Identifier: Apache-2.0

// Package index is the list of entries of one converted layer, and the rules
// by which the lists of an image's layers become one tree.
//
// A layer's file contents lie in its data file at offsets that are multiples
// of BlockSize; everything else about it lies in its index: a header of
// HeaderSize bytes and then one record per tar entry that counts, in the order
// of the tar, because tar semantics are about order. Markers ("whiteouts") are
// records like the others. The form is private to gantry, versioned, the same
// bytes for the same layer, and read with every length checked: the converter
// that writes it handles foreign bytes and is not believed.
package index
