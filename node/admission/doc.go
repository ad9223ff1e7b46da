// Package admission decides how many operations of clients a node works on at
// once, makes a few wait, and refuses the rest before any work is done, so that a
// node to which too much is sent goes on doing what it can. DESIGN.md has the
// reasons and the figures.
package admission
