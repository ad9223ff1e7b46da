package coord_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pairdb/pairdb/api/errcode"
	"github.com/pairdb/pairdb/coord"
	"github.com/pairdb/pairdb/coord/causal"
	"github.com/pairdb/pairdb/coord/quorum"
	"github.com/pairdb/pairdb/gossip/schema"
)

// script is a cluster driven by a text file in testdata/scripts. Commands:
//
//	cluster nodes=3 rf=3 [skew=(b,-10m,…)]   a new cluster
//	put|delete|get NODE KEY [VALUE] [level=one] [token=NAME] [save=NAME]
//	    [deadline=1s] [bg] [tenant=T] [expect=(dot,…)] [id=IDEMPOTENCY-KEY]
//	  runs until it has answered, or with bg goes on at once
//	down|up NODE...        stop and start processes
//	believe NODE... is=(b,dead)   what NODEs think of b; also alive, left, suspect
//	cut|join A B           both ways; slow NODE by=300ms
//	fail-syncs NODE        every sync fails from now on
//	refuse NODE            the replica refuses writes: disk full
//	ring                   a newer entry touches the tenant; only the named
//	                       nodes have heard: know=(a,b)
//	advance 3s             also prints what answered meanwhile
//	dump KEY [tenant=T]    what each owner holds
//	records KEY ID         what each owner remembers of an idempotency key
//	repeat N NODE KEY VALUE [tenant=T]   puts one after the other; prints the last
//	scan NODE [prefix=P] [start=S] [end=E] [max=N] [level=one] [tenant=T]
//	    [page=NAME] [save=NAME] [deadline=1s] [keys]   one page of a scan, from
//	  the page token NAME, with the token behind it saved; or with all, all pages
//	counts                 of the metric hooks
type script struct {
	w      *world
	tokens map[string][]byte
	out    strings.Builder
	bg     int
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{tokens: map[string][]byte{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			s.run(t, d)
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) run(t *testing.T, d *datadriven.TestData) {
	switch d.Cmd {
	case "cluster":
		var nodes, rf int
		d.ScanArgs(t, "nodes", &nodes)
		d.ScanArgs(t, "rf", &rf)
		s.w = newWorld(1, nodes, rf, newFakeDisk)
		if arg, ok := d.Arg("skew"); ok {
			for i := 0; i+1 < len(arg.Vals); i += 2 {
				s.w.node(arg.Vals[i]).skew = duration(t, arg.Vals[i+1])
			}
		}
	case "put", "delete", "get":
		s.operation(t, d)
	case "advance":
		s.w.advance(duration(t, d.CmdArgs[0].Key))
	case "dump":
		tenant := simTenant
		d.MaybeScanArgs(t, "tenant", &tenant)
		s.dump(tenant, d.CmdArgs[0].Key)
	case "records":
		s.records(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
	case "repeat":
		s.repeat(t, d)
	case "scan":
		s.scan(t, d)
	case "counts":
		var names []string
		for name := range s.w.counts {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			s.printf("%s: %d", name, s.w.counts[name])
		}
	case "ring":
		s.ring(d)
	default:
		s.fault(t, d)
	}
}

func duration(t *testing.T, v string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *script) fault(t *testing.T, d *datadriven.TestData) {
	w := s.w
	var nodes []*simNode
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			nodes = append(nodes, w.node(a.Key))
		}
	}
	for _, n := range nodes {
		switch d.Cmd {
		case "down":
			n.crash()
		case "up":
			n.boot()
		case "believe":
			var who, what string
			d.ScanArgs(t, "is", &who, &what)
			n.believed[w.node(who).i] = map[string]schema.Liveness{
				"dead": schema.Dead, "left": schema.Left, "suspect": schema.Suspect, "alive": schema.Alive,
			}[what]
			n.look()
		case "slow":
			var by string
			d.ScanArgs(t, "by", &by)
			w.net.slow[n.i] = duration(t, by)
		case "fail-syncs":
			n.disk.failSyncs()
		case "refuse":
			n.disk.(*fakeDisk).refuse = &coord.Error{Code: errcode.DiskFull, Outcome: errcode.NotApplied, Message: "the disk is full"}
		case "cut", "join":
			for _, m := range nodes {
				w.net.cut[[2]int{n.i, m.i}] = d.Cmd == "cut" && n != m
			}
		default:
			t.Fatalf("unknown command %s", d.Cmd)
		}
	}
}

// ring lets a newer entry touch the tenant.
func (s *script) ring(d *datadriven.TestData) {
	w := s.w
	w.version++
	moved := *w.tenants[0]
	moved.Version = w.version
	for _, a := range d.CmdArgs {
		if a.Key == "know" {
			for _, name := range a.Vals {
				w.node(name).known = w.version
			}
		}
	}
	old := w.tenants
	for _, n := range w.nodes {
		w.tenants = old
		if n.known == w.version {
			w.tenants = append([]*schema.Tenant{&moved}, old[1:]...)
		}
		n.look()
	}
	// Whoever looks from now on has learned it.
	w.tenants = append([]*schema.Tenant{&moved}, old[1:]...)
}

func (s *script) dump(tenant, key string) {
	at := s.w.addressIn(tenant, key)
	for _, id := range s.w.layout.Owners(nil, at.Partition, s.w.tenants[0].RF) {
		n := s.w.nodes[id[0]-1]
		s.printf("%s: %s", n.name, objectString(n.disk.object(at)))
	}
}

func (s *script) records(key, id string) {
	at := s.w.address(key)
	for _, owner := range s.w.layout.Owners(nil, at.Partition, s.w.tenants[0].RF) {
		n := s.w.nodes[owner[0]-1]
		text := "nothing"
		if r := n.disk.record(at, []byte(id)); r != nil {
			text = fmt.Sprintf("votes for %s in round %d", dotString(r.Dot), r.Round)
			if r.Applied {
				text = "has " + dotString(r.Dot)
			}
		}
		s.printf("%s: %s", n.name, text)
	}
}

// operation starts one client operation.
func (s *script) operation(t *testing.T, d *datadriven.TestData) {
	var words []string
	opt := map[string]string{"tenant": simTenant, "level": "quorum"}
	var expect causal.Context
	for _, a := range d.CmdArgs {
		switch {
		case len(a.Vals) == 0:
			words = append(words, a.Key)
		case a.Key == "expect":
			expect = s.context(t, a.Vals)
		default:
			opt[a.Key] = a.Vals[0]
		}
	}
	background := words[len(words)-1] == "bg"
	if background {
		words = words[:len(words)-1]
	}
	n := s.w.node(words[0])
	level, err := quorum.ParseLevel(opt["level"])
	if err != nil {
		t.Fatal(err)
	}
	var deadline time.Time
	if v := opt["deadline"]; v != "" {
		deadline = n.Now().Add(duration(t, v))
	}
	key := []byte(expand(words[1]))
	label := ""
	if background {
		s.bg++
		label = fmt.Sprintf("[%d] ", s.bg)
		s.printf("%sstarted", label)
	}
	answered := false
	began := s.w.now
	show := func(err error, format string, args ...any) {
		answered = true
		text := fmt.Sprintf(format, args...)
		if err != nil {
			text = err.Error()
			e := err.(*coord.Error)
			if e.Outcome != "" {
				text += " [" + string(e.Outcome) + "]"
			}
			if len(e.Token) > 0 {
				s.save(opt["save"], e.Token)
				text += " with a context"
			}
		}
		s.printf("%s%v %s", label, s.w.now-began, text)
	}
	wrote := func(r coord.WriteResponse, err error) {
		s.save(opt["save"], r.Token)
		what := ""
		if r.Duplicate {
			what = " duplicate"
		}
		if len(r.Token) == 0 {
			what += " no context"
		}
		show(err, "ok %s %d/%d%s", dotString(r.Dot), r.Acks, r.Replicas, what)
	}
	switch d.Cmd {
	case "put":
		n.coord.StartPut(coord.PutRequest{
			Tenant: opt["tenant"], Key: key, Value: []byte(expand(words[2])), Level: level,
			Token: s.token(opt["token"]), Deadline: deadline, IdempotencyKey: []byte(expand(opt["id"])),
		}, wrote)
	case "delete":
		n.coord.StartDelete(coord.DeleteRequest{
			Tenant: opt["tenant"], Key: key, Level: level, Token: s.token(opt["token"]), Deadline: deadline, ExpectClock: expect,
			IdempotencyKey: []byte(expand(opt["id"])),
		}, wrote)
	case "get":
		n.coord.StartGet(coord.GetRequest{Tenant: opt["tenant"], Key: key, Level: level, Deadline: deadline},
			func(r coord.GetResponse, err error) {
				s.save(opt["save"], r.Token)
				if err != nil {
					show(err, "")
					return
				}
				var values []string
				for _, v := range r.Siblings {
					values = append(values, fmt.Sprintf("%q %s", v.Value, dotString(v.Dot)))
				}
				show(nil, "%s", strings.Join(values, ", "))
			})
	}
	for !background && !answered {
		if !s.w.step(s.w.now + time.Minute) {
			s.printf("no answer")
			return
		}
	}
}

// repeat puts N times, each time to the end, and prints the last answer.
func (s *script) repeat(t *testing.T, d *datadriven.TestData) {
	n, err := strconv.Atoi(d.CmdArgs[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	once := *d
	once.Cmd, once.CmdArgs = "put", d.CmdArgs[1:]
	for range n {
		s.out.Reset()
		s.operation(t, &once)
	}
}

func (s *script) save(name string, token []byte) {
	if name != "" {
		s.tokens[name] = token
	}
}

// token returns a saved token; NAME+1 flips its last bit, and forged:N is N
// bytes of nothing.
func (s *script) token(name string) []byte {
	if n, ok := strings.CutPrefix(name, "forged:"); ok {
		size, _ := strconv.Atoi(n)
		return make([]byte, size)
	}
	if base, ok := strings.CutSuffix(name, "+1"); ok {
		b := slices.Clone(s.tokens[base])
		b[len(b)-1] ^= 1
		return b
	}
	return s.tokens[name]
}

func (s *script) context(t *testing.T, dots []string) causal.Context {
	var c []causal.Dot
	for _, v := range dots {
		var node string
		var start, n uint64
		if v == "" {
			continue
		}
		node = v[:1]
		if _, err := fmt.Sscanf(v[1:], "%d.%d", &start, &n); err != nil {
			t.Fatal(err)
		}
		c = append(c, causal.Dot{Actor: uint64(s.w.node(node).i+1)<<32 | start, Counter: n})
	}
	return causal.NewContext(c...)
}

// expand turns x*N into N times x, for sizes at the limits, and "empty" into
// nothing.
func expand(v string) string {
	if x, n, ok := strings.Cut(v, "*"); ok {
		if count, err := strconv.Atoi(n); err == nil {
			return strings.Repeat(x, count)
		}
	}
	if v == "empty" {
		return ""
	}
	return v
}
