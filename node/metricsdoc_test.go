package node

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pairdb/pairdb/client"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

const metricsReference = "../docs/metrics.md"

// described is what a registered collector says of a series.
type described struct{ help, labels string }

// describedSeries lists the series of a node by name, without starting it.
func describedSeries(t *testing.T) map[string]described {
	t.Helper()
	reg := prometheus.NewRegistry()
	n := &Node{reg: reg}
	newCounters(reg)
	newOperations(reg)
	if err := n.registerCollectors(); err != nil {
		t.Fatal(err)
	}
	ch := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(ch)
		close(ch)
	}()
	form := regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "((?:[^"\\]|\\.)*)", unit: "[^"]*", constLabels: \{\}, variableLabels: \{([^}]*)\}\}$`)
	all := map[string]described{}
	for d := range ch {
		if !strings.Contains(d.String(), `"pairdb_`) {
			continue
		}
		if m := form.FindStringSubmatch(d.String()); m == nil {
			t.Errorf("a description of another form: %s", d)
		} else {
			all[m[1]] = described{strings.ReplaceAll(m[2], `\"`, `"`), m[3]}
		}
	}
	return all
}

// scrapedTypes runs a node, asks something of it, and returns the type of each
// series that it then has.
func scrapedTypes(t *testing.T) map[string]string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	types := map[string]string{}
	err := Run(ctx, soloConfig(t), Options{
		Logger: slog.New(slog.DiscardHandler),
		Ready: func(at Addresses) {
			defer cancel()
			c, err := client.New(client.Options{Endpoints: []string{at.GRPC}, Timeout: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close() // the test is over
			if _, err := c.Put(ctx, "k", []byte("v")); err != nil {
				t.Error(err)
			}
			if _, err := c.Get(ctx, "k"); err != nil {
				t.Error(err)
			}
			for range 2 { // the first is a series of the second
				types, err = scrape(ctx, "http://"+at.HTTP+"/metrics")
				if err != nil {
					t.Error(err)
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func scrape(ctx context.Context, url string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // read to its end
	types := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 8<<20))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 4 && f[1] == "TYPE" && strings.HasPrefix(f[2], "pairdb_") {
			types[f[2]] = f[3]
		}
	}
	return types, lines.Err()
}

// TestMetricsReferenceIsCurrent: docs/metrics.md has every series that a node
// registers, as its own scrape shows it. A series is missing in a scrape of one
// node alone only if it is about others. Write the page anew with go test ./node
// -run Reference -update.
func TestMetricsReferenceIsCurrent(t *testing.T) {
	all, types := describedSeries(t), scrapedTypes(t)
	for name := range types {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is scraped and not described: register it in registerCollectors, newCounters or newOperations", name)
		}
	}
	var b bytes.Buffer
	b.WriteString(`# Metrics

<!-- Generated from the registered collectors; run make gen after a change there. -->

Every node serves its own at ` + "`GET /metrics`" + ` on its HTTP port, 8080 unless configured. Counters run from the start of the
process. Histograms are native ones, and classic ones for who asks for the text format. Beside these there are those of the Go
runtime, ` + "`go_*`" + `, and of the process, ` + "`process_*`" + `, as their library gives them.

| name | type | labels | meaning |
|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kind := types[name]
		if kind == "" {
			kind = "counter"
			if !strings.HasSuffix(name, "_total") {
				kind = "gauge"
			}
			if labels := all[name].labels; labels == "" {
				t.Errorf("%s is registered and has no value after a start, a write and a read", name)
			}
		}
		d := all[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, kind, strings.ReplaceAll(d.labels, ",", ", "), strings.ReplaceAll(d.help, "|", `\|`))
	}
	if *update {
		if err := os.WriteFile(metricsReference, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsReference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/metrics.md is not what a node registers; run: make gen")
	}
}
