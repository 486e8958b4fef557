package main

import (
	"cmp"
	"fmt"
	"slices"
)

// The picture of a graph: a column for each level, from what starts at once on
// the left to what starts last. Long edges pass through the columns between as
// if there were a service; the order in a column follows from the neighbours,
// so that edges cross seldom, and then each goes to where its neighbours are.
// This is the method of Sugiyama, Tagawa and Toda (1981).

// sweeps is how often the order and the places are mended, from the left and
// from the right.
const sweeps = 12

// spot is a service in a column, or where an edge passes.
type spot struct {
	node        *graphNode // nil where an edge passes
	level       int
	y, height   float64 // of the middle; with the gap below
	left, right []*spot // neighbours
	place       float64 // in the column while the order is sought
}

// alone says that nothing has to do with it.
func (s *spot) alone() bool { return len(s.left)+len(s.right) == 0 }

// route is an edge and the spots that it passes, from right to left.
type route struct {
	graphEdge
	spots []*spot
}

type layout struct {
	columns [][]*spot
	spots   map[*graphNode]*spot
	routes  []route
}

const (
	boxHeight  = 38.0
	boxGap     = 18.0
	edgeGap    = 14.0
	columnGap  = 90.0
	pageMargin = 24.0
)

func newLayout(g *graph) *layout {
	l := &layout{columns: make([][]*spot, g.levels), spots: map[*graphNode]*spot{}}
	add := func(s *spot) *spot {
		l.columns[s.level] = append(l.columns[s.level], s)
		return s
	}
	for _, n := range g.nodes {
		l.spots[n] = add(&spot{node: n, level: n.level, height: boxHeight + boxGap})
	}
	for _, e := range g.edges {
		from, to := l.spots[e.from], l.spots[e.to]
		if from.level < to.level { // of wants and conflicts
			from, to = to, from
		}
		r := route{graphEdge: e, spots: []*spot{from}}
		for at := from; at.level > to.level; {
			next := to
			if at.level > to.level+1 {
				next = add(&spot{level: at.level - 1, height: edgeGap})
			}
			at.left, next.right = append(at.left, next), append(next.right, at)
			r.spots = append(r.spots, next)
			at = next
		}
		if from.level == to.level {
			r.spots = append(r.spots, to)
		}
		l.routes = append(l.routes, r)
	}
	l.order()
	l.placeAll()
	return l
}

// order sorts each column by where the neighbours of its spots are.
func (l *layout) order() {
	number := func(column []*spot) {
		for i, s := range column {
			s.place = float64(i) / float64(len(column))
		}
	}
	for _, column := range l.columns {
		number(column)
	}
	l.sweep(func(column []*spot, neighbours func(*spot) []*spot) {
		for _, s := range column {
			if m, ok := mean(neighbours(s), func(o *spot) float64 { return o.place }); ok {
				s.place = m
			}
			if s.alone() {
				s.place = 2 // below all others
			}
		}
		slices.SortStableFunc(column, func(a, b *spot) int { return cmp.Compare(a.place, b.place) })
		number(column)
	})
}

// placeAll moves each spot to the middle of its neighbours, as far as there is
// room.
func (l *layout) placeAll() {
	for _, column := range l.columns {
		y := 0.0
		for _, s := range column {
			s.y = y + s.height/2
			y += s.height
		}
	}
	l.sweep(func(column []*spot, neighbours func(*spot) []*spot) {
		for i, s := range column {
			if m, ok := mean(neighbours(s), func(o *spot) float64 { return o.y }); ok {
				s.y = m
			}
			if s.alone() && i > 0 {
				s.y = column[i-1].y
			}
		}
		spread(column)
	})
	top := 0.0
	for i, column := range l.columns {
		if i == 0 || column[0].y-column[0].height/2 < top {
			top = column[0].y - column[0].height/2
		}
	}
	for _, column := range l.columns {
		for _, s := range column {
			s.y -= top
		}
	}
}

// sweep visits the columns from left to right and back again.
func (l *layout) sweep(mend func(column []*spot, neighbours func(*spot) []*spot)) {
	left := func(s *spot) []*spot { return s.left }
	right := func(s *spot) []*spot { return s.right }
	for range sweeps {
		for _, column := range l.columns {
			mend(column, left)
		}
		for i := range l.columns {
			mend(l.columns[len(l.columns)-1-i], right)
		}
	}
}

func mean(spots []*spot, of func(*spot) float64) (float64, bool) {
	sum := 0.0
	for _, s := range spots {
		sum += of(s)
	}
	return sum / max(1, float64(len(spots))), len(spots) > 0
}

// spread makes room between the spots of a column, each moving as little as
// possible: those that would overlap form a block around the mean of where
// they want to be, and blocks that meet are joined.
func spread(column []*spot) {
	type block struct {
		first       int
		sum, weight float64 // of where the top of the block should be
	}
	var blocks []block
	offset := 0.0
	offsets := make([]float64, len(column))
	for i, s := range column {
		offsets[i] = offset + s.height/2
		offset += s.height
		blocks = append(blocks, block{i, s.y - offsets[i], 1})
		for n := len(blocks); n > 1; n-- {
			a, b := blocks[n-2], blocks[n-1]
			if a.sum/a.weight <= b.sum/b.weight {
				break
			}
			blocks = append(blocks[:n-2], block{a.first, a.sum + b.sum, a.weight + b.weight})
		}
	}
	for i, b := range blocks {
		end := len(column)
		if i+1 < len(blocks) {
			end = blocks[i+1].first
		}
		for j := b.first; j < end; j++ {
			column[j].y = b.sum/b.weight + offsets[j]
		}
	}
}

// svg draws the graph.
func (g *graph) svg() string {
	l := newLayout(g)
	const head, legend = 34.0, 46.0
	lefts, widths := make([]float64, g.levels), make([]float64, g.levels)
	x, height := pageMargin, 0.0
	for i, column := range l.columns {
		for _, s := range column {
			if s.node != nil {
				widths[i] = max(widths[i], textWidth(s.node.name)+26, 90)
			}
			height = max(height, s.y+s.height/2)
		}
		lefts[i] = x
		x += widths[i] + columnGap
	}
	width := max(x-columnGap+pageMargin, 560)
	p := newSVG(width, height+head+legend+2*pageMargin, "services and their dependencies")
	p.text(pageMargin, pageMargin+10, "title", "Dependencies")
	top := pageMargin + head
	for _, r := range l.routes {
		r.draw(p, top, lefts, widths)
	}
	for _, column := range l.columns {
		for _, s := range column {
			if s.node == nil {
				continue
			}
			state := cmp.Or(string(s.node.state), "missing")
			x, y := lefts[s.level], top+s.y-boxHeight/2
			p.printf(`<g><title>%s: %s</title>`, escapeXML(s.node.name), escapeXML(state))
			p.rect(x, y, widths[s.level], boxHeight, stateClass(s.node.state))
			p.text(x+12, y+16, "name", s.node.name)
			p.text(x+12, y+31, "small", state)
			p.printf("</g>")
		}
	}
	y := top + height + 24
	x = pageMargin
	for _, kind := range relations {
		p.line(x, y, x+34, y, "edge "+string(kind))
		p.text(x+42, y+4, "small", string(kind))
		x += 120
	}
	p.text(pageMargin, y+22, "small", "From left to right as they start; an arrow points to what is needed.")
	return p.end()
}

// draw puts an edge into the picture: from box to box, with a curve from
// column to column.
func (r route) draw(p *svg, top float64, lefts, widths []float64) {
	first, last := r.spots[0], r.spots[len(r.spots)-1]
	marks := `marker-end="url(#arrow)"`
	if r.kind == conflicts {
		marks = ""
	} else if first.node != r.from {
		marks = `marker-start="url(#arrow)"`
	}
	path := ""
	if first.level == last.level { // around the outside of its column
		right := lefts[first.level] + widths[first.level]
		path = fmt.Sprintf("M%.1f,%.1f C%.1f,%.1f %.1f,%.1f %.1f,%.1f", right, top+first.y,
			right+46, top+first.y, right+46, top+last.y, right, top+last.y)
	} else {
		path = fmt.Sprintf("M%.1f,%.1f", lefts[first.level], top+first.y)
		for i, s := range r.spots[1:] {
			from, to := lefts[s.level+1], lefts[s.level]+widths[s.level]
			middle := (from + to) / 2
			path += fmt.Sprintf(" C%.1f,%.1f %.1f,%.1f %.1f,%.1f", middle, top+r.spots[i].y, middle, top+s.y, to, top+s.y)
			if s != last {
				path += fmt.Sprintf(" H%.1f", lefts[s.level])
			}
		}
	}
	p.printf(`<path d="%s" class="edge %s" %s/>`, path, r.kind, marks)
}
