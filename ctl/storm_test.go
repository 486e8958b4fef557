//go:build linux

package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// The storm: zinit-server is killed at random moments, over boot, commands and
// shutdown, while services print, crash, wait for each other, stop slowly and
// leave children behind. What the services did is known from outside, by
// journals and locks of their own, and is compared with what zinit says of it,
// and with a quiet world that had the same wishes and no kills.
//
//	go test ./ctl -run TestStorm -v -storm.kills 500 -storm.seed 7
//
// The seed decides on services and wishes; the moments of the kills are the
// same only as far as the machine lets them be. ZINIT_TEST_BIN and
// ZINIT_TEST_RACE are as for the stories.
var (
	stormKills = flag.Int("storm.kills", 40, "about how often zinit-server is killed; at least once over a whole life of zinit of each kind")
	stormSeed  = flag.Uint64("storm.seed", 1, "decides on services and wishes; 0 takes the time")
	stormKeep  = flag.String("storm.keep", "", "a directory for what is left of a world where something went wrong")
)

// stormBoot, stormWishes and stormShutdown are how many kills one world survives
// in each part of its life. There are not more because zinit-pid1 waits twice as
// long after each death in a row, up to 5 s; a row is over when one has lived for
// stormRest.
const (
	stormBoot     = 3
	stormWishes   = 6
	stormShutdown = 5
	stormRest     = 10 * time.Second
)

func TestStorm(t *testing.T) {
	if *stormSeed == 0 {
		*stormSeed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *stormSeed)
	root := shortTempDir(t)
	s := &storm{root: root, bin: programs(t, root), begun: time.Now()}
	if err := os.Link(filepath.Join(s.bin, "svc"), filepath.Join(s.bin, "storm")); err != nil {
		t.Fatal(err)
	}
	worlds := []string{"pid1", "subreaper"}
	if os.Getuid() == 0 {
		worlds = append(worlds, "user")
	}
	seeds := rand.New(rand.NewPCG(*stormSeed, 0))
	each := len(worlds) * (stormBoot + stormWishes + stormShutdown)
	for round := range max(1, (*stormKills+each/2)/each) {
		if seed := seeds.Uint64(); !t.Failed() {
			t.Run(strconv.Itoa(round+1), func(t *testing.T) { s.round(t, seed, worlds) })
		}
	}
	t.Log(s.table())
}

// storm is what all rounds have in common.
type storm struct {
	root, bin string
	begun     time.Time
	kills     []stormKill
	total     stormTotals
}

// stormTotals counts what was looked at.
type stormTotals struct {
	worlds, wishes, replaced, starts, ends, events, incidents, printed, followed, stored int
	violations                                                                           int
}

// stormKill is one SIGKILL of zinit-server.
type stormKill struct {
	phase   string        // what was going on
	trigger string        // what it came soon after
	answer  time.Duration // until the next one answered, 0 where another kill came first
	pause   time.Duration // what of that zinit-pid1 waited on purpose
}

// round lets the storm loose on one life of each kind of world.
func (s *storm) round(t *testing.T, seed uint64, kinds []string) {
	var running sync.WaitGroup
	worlds := []*stormWorld{s.newWorld(t, "quiet", seed)}
	for _, kind := range kinds {
		worlds = append(worlds, s.newWorld(t, kind, seed))
	}
	for _, w := range worlds {
		running.Go(w.live)
	}
	running.Wait()
	for _, w := range worlds[1:] {
		w.compare(worlds[0])
	}
	for _, w := range worlds {
		w.report()
	}
}

// newWorld makes the directory of a world.
func (s *storm) newWorld(t *testing.T, kind string, seed uint64) *stormWorld {
	dir, err := os.MkdirTemp(s.root, "w")
	if err != nil {
		t.Fatal(err)
	}
	w := &stormWorld{
		T: t, storm: s, kind: kind, dir: dir, seed: seed,
		stage:     &stage{mark: "ZINIT_STORM=" + dir},
		ended:     make(chan struct{}),
		commanded: make(chan struct{}, 1), journaled: make(chan struct{}, 1),
		model: newStormModel(),
	}
	w.services, w.lanes = stormScript(rand.New(rand.NewPCG(seed, 1)))
	dirs := []string{dir, w.path("services"), w.path("j"), w.path("log")}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, sp := range w.services {
		if !sp.later {
			w.write(sp)
		}
	}
	if kind == "user" {
		w.cred = &syscall.Credential{Uid: 12345, Gid: 12345}
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			return os.Chown(path, 12345, 12345)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// table shows what the storm has done.
func (s *storm) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\nkills\tanswered\tp50\tp99\tmax\twithout pause p50\tp99\tmax\t phase\t\n")
	phases := map[string][]stormKill{}
	for _, k := range s.kills {
		phases[k.phase] = append(phases[k.phase], k)
		phases["~all"] = append(phases["~all"], k)
	}
	names := make([]string, 0, len(phases))
	for p := range phases {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		var total, net []time.Duration
		for _, k := range phases[p] {
			if k.answer > 0 {
				total = append(total, k.answer)
				net = append(net, max(0, k.answer-k.pause))
			}
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t %s\t\n", len(phases[p]), len(total),
			percentile(total, 50), percentile(total, 99), percentile(total, 100),
			percentile(net, 50), percentile(net, 99), percentile(net, 100), strings.TrimPrefix(p, "~"))
	}
	w.Flush()
	c := s.total
	triggers := map[string]int{}
	for _, k := range s.kills {
		triggers[k.trigger]++
	}
	fmt.Fprintf(&out, `
seed %d: %d kills in %d worlds in %s; zinit-server was replaced %d times before the shutdowns
%d kills came soon after the begin or the end of a command, %d after a start or end of a service, %d after the kill before, %d at any time
%d wishes acknowledged; %d starts and %d ends of services, each counted once; %d events, %d incidents
%d lines printed; %d read by zinit logs -f and %d from log files, each once and in order
%d violations
`, *stormSeed, len(s.kills), c.worlds, time.Since(s.begun).Round(time.Second), c.replaced,
		triggers["command"], triggers["service"], triggers["replacement"], triggers["time"],
		c.wishes, c.starts, c.ends, c.events, c.incidents, c.printed, c.followed, c.stored, c.violations)
	return out.String()
}

// percentile returns the p-th percentile in milliseconds.
func percentile(of []time.Duration, p int) string {
	if len(of) == 0 {
		return "-"
	}
	slices.Sort(of)
	d := of[min(len(of)-1, len(of)*p/100)]
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// stormPhase is what a world is doing; it is read by its killer.
type stormPhase struct{ v atomic.Value }

func (p *stormPhase) set(name string) { p.v.Store(name) }
func (p *stormPhase) get() string {
	name, _ := p.v.Load().(string)
	return name
}
