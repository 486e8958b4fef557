package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// wellFormed says whether a picture is XML.
func wellFormed(picture string) error {
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		switch _, err := d.Token(); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

func TestGraphLevels(t *testing.T) {
	g := newGraph([]ipc.Service{
		{Name: "a", Requires: []string{"b"}, After: []string{"b", "c"}, Wants: []string{"e"}},
		{Name: "b", After: []string{"c"}},
		{Name: "c"},
		{Name: "d", Requires: []string{"gone"}},
		{Name: "e", Wants: []string{"a"}, Conflicts: []string{"c"}},
		{Name: "x", After: []string{"y"}}, {Name: "y", After: []string{"x"}}, {Name: "z", After: []string{"z"}},
	}, "")
	var got []string
	for _, n := range g.nodes {
		got = append(got, fmt.Sprintf("%s %d", n.name, n.level))
	}
	want := []string{"a 2", "b 1", "c 0", "d 1", "e 0", "gone 0", "x 1", "y 0", "z 0"}
	if !slices.Equal(got, want) {
		t.Errorf("levels %q, want %q", got, want)
	}
	if err := wellFormed(g.svg()); err != nil {
		t.Error(err)
	}
}

func TestGraphOfACycleAlone(t *testing.T) {
	g := newGraph([]ipc.Service{{Name: "x", Requires: []string{"y"}}, {Name: "y", After: []string{"x", "y"}}}, "")
	if err := wellFormed(g.svg()); err != nil || g.levels != 2 {
		t.Errorf("%d levels, %v", g.levels, err)
	}
}

// TestSystemServicesComeFirst: all others wait for them, without saying so.
func TestSystemServicesComeFirst(t *testing.T) {
	of := func(dir string) ipc.Origin { return ipc.Origin{File: "/etc/zinit/" + dir + "/x.toml"} }
	g := newGraph([]ipc.Service{
		{Name: "app", Origin: of("services")},
		{Name: "mount", Origin: of("system")},
		{Name: "net", After: []string{"mount"}, Origin: of("system")},
		{Name: "web", Requires: []string{"app"}, Origin: of("services")},
	}, "/etc/zinit/system")
	for i, want := range []int{2, 0, 1, 3} {
		if n := g.nodes[i]; n.level != want {
			t.Errorf("%s: level %d, want %d", n.name, n.level, want)
		}
	}
}

// TestBoxesDoNotOverlap draws graphs at random.
func TestBoxesDoNotOverlap(t *testing.T) {
	for seed := range 200 {
		r := rand.New(rand.NewSource(int64(seed)))
		var services []ipc.Service
		for i := range r.Intn(40) {
			s := ipc.Service{Name: fmt.Sprintf("s%d", i), State: allStates[r.Intn(len(allStates))]}
			for _, list := range []*[]string{&s.Requires, &s.After, &s.Wants, &s.Conflicts} {
				for range r.Intn(3) {
					*list = append(*list, fmt.Sprintf("s%d", r.Intn(45)))
				}
			}
			services = append(services, s)
		}
		g := newGraph(services, "")
		l := newLayout(g)
		for _, column := range l.columns {
			for i, s := range column {
				if s.y-s.height/2 < -0.01 {
					t.Fatalf("seed %d: a box is above the picture: %v", seed, s.y)
				}
				if i > 0 && s.y-s.height/2 < column[i-1].y+column[i-1].height/2-0.01 {
					t.Fatalf("seed %d: boxes overlap", seed)
				}
			}
		}
		if err := wellFormed(g.svg()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestPictureThatCannotBeWritten(t *testing.T) {
	s := ipctest.Serve(t, answer)
	r := zinit(t, []string{"--socket", s.Socket, "graph", "--svg", filepath.Join(t.TempDir(), "none", "x.svg")})
	if r.code != exitFailed || !strings.Contains(r.stderr, "cannot write the picture") {
		t.Errorf("%+v", r)
	}
}

func TestEscapeXML(t *testing.T) {
	if got := escapeXML("<a href=\"x\">&\x1b\x00\xff</a>"); got != `&lt;a href=&quot;x&quot;&gt;&amp;\x1b\x00\xff&lt;/a&gt;` {
		t.Error(got)
	}
}
