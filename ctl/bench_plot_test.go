//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
)

// The picture of `make bench-peers`: two plots with a line for each peer. Both
// axes are logarithmic, so that a cost for each service is a straight line.

const (
	plotWidth, plotHeight = 330.0, 330.0
	plotLeft, plotTop     = 60.0, 60.0
	plotLabels            = 140.0 // the room for names on the right
)

// peerColours tell the peers apart on white and on black; zinit is the third.
var peerColours = []string{"#9aa5b1", "#5f6b7a", "#d6336c", "#2f7ed8", "#2ca02c", "#e8833a", "#8e5bd0", "#a9770f", "#14a3a8", "#7a8b00"}

func (t *peerTable) svg() string {
	s := newSVG(2*(plotLeft+plotWidth+plotLabels), plotTop+plotHeight+50, "Supervisors, by the number of their services")
	t.plot(s, plotLeft, "time until all services have started, ms", rowBoot)
	t.plot(s, 2*plotLeft+plotWidth+plotLabels, "memory of the supervisor (PSS), MiB", rowMemory)
	s.WriteString("</svg>\n")
	return s.String()
}

// plot draws the rows of a measure, with its left edge at x0.
func (t *peerTable) plot(s *svg, x0 float64, title string, row func(int) string) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range t.peers {
		for _, n := range peerSizes {
			if v, ok := t.median(row(n), p); ok {
				low, high = min(low, math.Floor(math.Log10(v))), max(high, math.Ceil(math.Log10(v)))
			}
		}
	}
	x := func(n int) float64 {
		return x0 + math.Log10(float64(n))/math.Log10(float64(peerSizes[len(peerSizes)-1]))*plotWidth
	}
	y := func(v float64) float64 { return plotTop + (high-math.Log10(v))/(high-low)*plotHeight }

	s.text(x0, plotTop-22, "title", title)
	for e := low; e <= high; e++ {
		v := math.Pow(10, e)
		s.line(x0, y(v), x0+plotWidth, y(v), "grid")
		s.text(x0-8, y(v)+4, "end", fmt.Sprint(v))
	}
	for _, n := range peerSizes {
		s.line(x(n), plotTop, x(n), plotTop+plotHeight, "grid")
		s.text(x(n), plotTop+plotHeight+20, "middle", fmt.Sprint(n))
	}
	s.text(x0+plotWidth/2, plotTop+plotHeight+40, "small middle", "services")

	type label struct {
		at           float64
		name, colour string
	}
	var labels []label
	for i, p := range t.peers {
		colour, path := peerColours[i%len(peerColours)], ""
		for _, n := range peerSizes {
			v, ok := t.median(row(n), p)
			if !ok {
				continue
			}
			s.printf(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(n), y(v), colour)
			path += fmt.Sprintf(" %.1f,%.1f", x(n), y(v))
			if n == peerSizes[len(peerSizes)-1] {
				labels = append(labels, label{y(v), p.name, colour})
			}
		}
		width := 1.6
		if p.name == "zinit" {
			width = 3
		}
		s.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`, path, colour, width)
	}
	// Names that would be on each other move down.
	slices.SortFunc(labels, func(a, b label) int { return int(math.Copysign(1, a.at-b.at)) })
	last := math.Inf(-1)
	for _, l := range labels {
		last = max(l.at, last+15)
		s.printf(`<text x="%.1f" y="%.1f" class="name" style="fill:%s">%s</text>`, x0+plotWidth+10, last+4, l.colour, escapeXML(l.name))
	}
}
