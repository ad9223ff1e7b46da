// Package ringmodel plays how a ring changes under load. All of it is tests: one
// goroutine plays whole clusters with crashes, lost disks, cut links, pauses and
// messages that come late, twice or never, every choice from a seed.
//
// The log, the owners and the guards are those of package ring, and the states of
// keys are those of package causal, so a mistake there is found here. The rest is a
// sketch of what replicas, coordinators and rounds do: one key for each tenant and
// partition, a stream is one message, and a disk syncs at once but where that matters.
//
// Each rule of the protocol can be switched off (rules_test.go), and a test says which
// schedule notices (switches_test.go). What is not played: signatures, several keys in
// a partition and where a stream goes on, partitions under quarantine, keys of
// idempotency, values that expire, reads at ONE and ALL, deletes where the last write
// wins, lost metadata, intents and the plan that is made of them, a class that parts in a
// partition under quarantine.
package ringmodel
