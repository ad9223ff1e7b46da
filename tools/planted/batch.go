package main

// batchBugs are those of batches and pipelines.
var batchBugs = []bug{
	{
		"begin a batch though two of its items have one key", "coord/batchcheck.go",
		"if i, k, ok := sameKey(requests); ok {", "if i, k, ok := sameKey(requests); ok && i == k {", "coord", "^TestBatch",
	},
	{
		"send what a batch has for a peer one by one", "coord/bundle.go",
		"	if b.mu.closed {", "	if b.mu.closed || len(m.Key) > 0 {", "coord", "^TestBatch",
	},
	{
		"keep all values that a batch has read, however large", "coord/batch.go",
		"if size > 0 && b.answer > 0 && b.answer+size > MaxBatchAnswer {", "if size < 0 {", "coord", "^TestBatch",
	},
	{
		"end a pipeline at a shutdown before what it has begun is answered", "node/rpc/pipeline.go",
		"p.mu.broken || p.mu.ended && p.mu.inFlight == 0", "p.mu.broken || p.mu.ended", "node/rpc", "^TestPipeline",
	},
	{
		"take an id of a pipeline again that is in flight", "node/rpc/pipelineitem.go",
		"if _, ok := p.mu.ids[id]; ok {", "if _, ok := p.mu.ids[id]; ok && id == 0 {", "node/rpc", "^TestPipeline",
	},
	{
		"send every request of a broken pipeline again, also a write that may have been done", "client/pipelinestream.go",
		"safe := !sent || mayMove && (untouched || q.kind != writes || e.Outcome == errcode.NotApplied)", "safe := true", "client", "^TestPipeline",
	},
}
