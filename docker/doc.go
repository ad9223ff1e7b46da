// Package docker holds what runs PairDB in containers, the Dockerfile and
// compose.yaml, and the test of both against a real Docker engine. It has no code
// of its own beside that.
package docker
