package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// seriesRows bounds a time series; a longer measurement has wider rows.
	seriesRows = 3600
	// A row's latencies are counted in buckets of 1/32 of a power of two, so that
	// its quantiles are at most 3.2 % too high, up to a minute.
	rowSubBits = 5
	rowBuckets = (27 - rowSubBits) << rowSubBits
)

// row is what came of the operations that were due in one span of time. It is
// safe for concurrent use.
type row struct {
	ok, refused, failed, dropped atomic.Int64
	latency                      [rowBuckets]atomic.Uint32
}

// rowBucket is where a latency in microseconds is counted.
func rowBucket(us int64) int {
	us = min(max(us, 0), latencyMax)
	shift := max(bits.Len64(uint64(us))-rowSubBits-1, 0)
	return min(shift<<rowSubBits+int(us>>shift), rowBuckets-1)
}

// rowLatency is the largest latency that is counted in a bucket.
func rowLatency(bucket int) int64 {
	shift := max(bucket>>rowSubBits-1, 0)
	return int64(bucket-shift<<rowSubBits+1)<<shift - 1
}

// add counts operations of one request: those that succeeded, after took, and
// those that did not.
func (r *row) add(ok, refused, failed int64, took time.Duration) {
	if ok > 0 {
		r.ok.Add(ok)
		r.latency[rowBucket(took.Microseconds())].Add(uint32(ok))
	}
	if refused > 0 {
		r.refused.Add(refused)
	}
	if failed > 0 {
		r.failed.Add(failed)
	}
}

// quantile is the latency in microseconds that a share of the operations that
// succeeded did not exceed, 0 if none did.
func (r *row) quantile(share float64) int64 {
	var all int64
	for i := range r.latency {
		all += int64(r.latency[i].Load())
	}
	var seen int64
	for i := range r.latency {
		seen += int64(r.latency[i].Load())
		if all > 0 && float64(seen) >= share*float64(all) {
			return rowLatency(i)
		}
	}
	return 0
}

// series has a row for each span of a measurement, made when it is first needed.
type series struct {
	width time.Duration
	rows  []atomic.Pointer[row]
}

// newSeries is for a measurement of a known length: a row a second, or fewer if
// that would be too many.
func newSeries(whole time.Duration) *series {
	width := time.Second
	for whole/seriesRows > width { // the product may be no time.Duration any more
		width *= 2
	}
	return &series{width: width, rows: make([]atomic.Pointer[row], max(1, (whole+width-1)/width))}
}

// at is the row of what was due so long after the beginning.
func (s *series) at(due time.Duration) *row {
	p := &s.rows[min(max(int(due/s.width), 0), len(s.rows)-1)]
	if r := p.Load(); r != nil {
		return r
	}
	p.CompareAndSwap(nil, new(row))
	return p.Load()
}

// rowFigures are a row as it is shown; latencies in microseconds. Due is the sum
// of the other counts.
type rowFigures struct {
	// At is when the row begins, in seconds from the beginning of the measurement.
	At      float64 `json:"at_s"`
	Due     int64   `json:"due"`
	OK      int64   `json:"ok"`
	Refused int64   `json:"refused"`
	Errors  int64   `json:"errors"`
	Dropped int64   `json:"dropped"`
	P50     int64   `json:"p50_us"`
	P99     int64   `json:"p99_us"`
}

func (r *row) figures(at time.Duration) rowFigures {
	f := rowFigures{
		At: at.Seconds(), OK: r.ok.Load(), Refused: r.refused.Load(), Errors: r.failed.Load(), Dropped: r.dropped.Load(),
		P50: r.quantile(0.5), P99: r.quantile(0.99),
	}
	f.Due = f.OK + f.Refused + f.Errors + f.Dropped
	return f
}

// figures are all rows, empty ones too. It is called when nothing is added any
// more.
func (s *series) figures() []rowFigures {
	all := make([]rowFigures, len(s.rows))
	for i := range s.rows {
		at := time.Duration(i) * s.width
		all[i] = s.at(at).figures(at)
	}
	return all
}
