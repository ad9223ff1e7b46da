//go:build rocksdb

package main

/*
#cgo LDFLAGS: -lrocksdb
#include <stdlib.h>
#include <string.h>
#include <rocksdb/c.h>

// One cgo crossing per operation: the copy-out and the scan loop stay in C.
static long rdb_get(rocksdb_t* db, rocksdb_readoptions_t* ro, const char* k, size_t kl, char* dst, size_t cap, char** err) {
	rocksdb_pinnableslice_t* p = rocksdb_get_pinned(db, ro, k, kl, err);
	if (!p) return -1;
	size_t n; const char* v = rocksdb_pinnableslice_value(p, &n);
	if (!v) { rocksdb_pinnableslice_destroy(p); return -1; }
	if (n <= cap) memcpy(dst, v, n);
	rocksdb_pinnableslice_destroy(p);
	return (long)n;
}
static long rdb_scan(rocksdb_t* db, rocksdb_readoptions_t* ro, const char* k, size_t kl, int n, long* bytes) {
	rocksdb_iterator_t* it = rocksdb_create_iterator(db, ro);
	long c = 0; size_t l;
	for (rocksdb_iter_seek(it, k, kl); c < n && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		rocksdb_iter_key(it, &l); *bytes += l;
		rocksdb_iter_value(it, &l); *bytes += l;
		c++;
	}
	rocksdb_iter_destroy(it);
	return c;
}
*/
import "C"

import (
	"errors"
	"time"
	"unsafe"
)

type rocksEng struct {
	db *C.rocksdb_t
	wo *C.rocksdb_writeoptions_t
	ro *C.rocksdb_readoptions_t
}

func init() {
	engines["rocksdb"] = func(c Config) (Engine, error) {
		o := C.rocksdb_options_create()
		C.rocksdb_options_set_create_if_missing(o, 1)
		C.rocksdb_options_set_write_buffer_size(o, C.size_t(c.MemMiB<<20))
		C.rocksdb_options_set_max_write_buffer_number(o, 4)
		C.rocksdb_options_set_max_background_jobs(o, C.int(c.Jobs+1))
		C.rocksdb_options_set_max_open_files(o, -1)
		C.rocksdb_options_set_compression(o, C.rocksdb_snappy_compression)
		b := C.rocksdb_block_based_options_create()
		C.rocksdb_block_based_options_set_block_cache(b, C.rocksdb_cache_create_lru(C.size_t(c.CacheMiB<<20)))
		C.rocksdb_block_based_options_set_filter_policy(b, C.rocksdb_filterpolicy_create_bloom_full(C.double(c.BloomBits)))
		C.rocksdb_options_set_block_based_table_factory(o, b)
		dir := C.CString(c.Dir)
		defer C.free(unsafe.Pointer(dir))
		var e *C.char
		db := C.rocksdb_open(o, dir, &e)
		if e != nil {
			return nil, errors.New(C.GoString(e))
		}
		wo := C.rocksdb_writeoptions_create()
		if c.Sync {
			C.rocksdb_writeoptions_set_sync(wo, 1)
		}
		return &rocksEng{db, wo, C.rocksdb_readoptions_create()}, nil
	}
}
func cp(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }
func (r *rocksEng) Put(k, v []byte) error {
	var e *C.char
	C.rocksdb_put(r.db, r.wo, cp(k), C.size_t(len(k)), cp(v), C.size_t(len(v)), &e)
	if e != nil {
		return errors.New(C.GoString(e))
	}
	return nil
}

func (r *rocksEng) Get(k, dst []byte) ([]byte, bool, error) {
	var e *C.char
	dst = dst[:cap(dst)]
	n := C.rdb_get(r.db, r.ro, cp(k), C.size_t(len(k)), cp(dst), C.size_t(len(dst)), &e)
	if e != nil {
		return dst, false, errors.New(C.GoString(e))
	}
	if n < 0 {
		return dst[:0], false, nil
	}
	return dst[:n], true, nil
}

func (r *rocksEng) Scan(start []byte, n int) (int, int, error) {
	var b C.long
	c := C.rdb_scan(r.db, r.ro, cp(start), C.size_t(len(start)), C.int(n), &b)
	return int(c), int(b), nil
}

func (r *rocksEng) prop(s string) uint64 {
	cs := C.CString(s)
	defer C.free(unsafe.Pointer(cs))
	var v C.uint64_t
	C.rocksdb_property_int(r.db, cs, &v)
	return uint64(v)
}

func (r *rocksEng) Settle() error {
	fo := C.rocksdb_flushoptions_create()
	var e *C.char
	C.rocksdb_flush(r.db, fo, &e)
	for i, calm := 0, 0; i < 240 && calm < 4; i++ {
		if r.prop("rocksdb.num-running-compactions")+r.prop("rocksdb.num-running-flushes")+r.prop("rocksdb.compaction-pending") == 0 {
			calm++
		} else {
			calm = 0
		}
		time.Sleep(250 * time.Millisecond)
	}
	return nil
}
func (r *rocksEng) Close() error { C.rocksdb_close(r.db); return nil }
