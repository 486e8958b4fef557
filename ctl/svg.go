package main

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/threefoldtech/zinit/ipc"
)

// svg is a picture being drawn, in units of which text has 13 to a line.
type svg struct{ strings.Builder }

// svgStyle is that of all pictures; classes are the states, and edges by kind.
// It works on white paper and on dark screens alike.
const svgStyle = `
svg { font: 13px system-ui, sans-serif; background: #fff; color: #1f2933 }
text { fill: currentColor } .small { font-size: 11px; fill: #616e7c }
.name { font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
.title { font-size: 16px; font-weight: 600 }
.grid { stroke: #e4e7eb } .axis { stroke: #9aa5b1 }
.box { stroke-width: 1.5; fill: #f5f7fa; stroke: #9aa5b1 }
.running { fill: #e3f9e5; stroke: #31a354 } .starting, .stopping { fill: #fff8db; stroke: #d9a400 }
.blocked { fill: #fff1d6; stroke: #e8833a } .failed { fill: #ffe3e3; stroke: #d64545 }
.exited { fill: #eef2f7; stroke: #7b8794 } .missing { fill: #fff; stroke: #d64545; stroke-dasharray: 3 3 }
.edge { fill: none; stroke: #7b8794; stroke-width: 1.3 } .requires { stroke: #3e4c59 }
.after { stroke-dasharray: 6 4 } .wants { stroke-dasharray: 1.5 4; stroke-linecap: round; stroke-width: 1.8 }
.conflicts { stroke: #d64545 } .hot { stroke-width: 2.6; stroke: #d6336c }
.waiting { fill: #e4e7eb } .work { fill: #7cb3e8 } .critical { fill: #e0587f } .ready { fill: #dff3e3 }
@media (prefers-color-scheme: dark) {
 svg { background: #16191d; color: #e4e7eb } .small { fill: #9aa5b1 } .grid { stroke: #2a3038 }
 .box { fill: #23282f } .running { fill: #16341f } .starting, .stopping { fill: #3a3213 }
 .blocked { fill: #3d2a17 } .failed { fill: #43191d } .missing { fill: #16191d }
 .requires { stroke: #cbd2d9 } .waiting { fill: #333b45 } .work { fill: #3f7cb8 } .ready { fill: #1d3a26 }
}`

// newSVG begins a picture of that size.
func newSVG(width, height float64, title string) *svg {
	s := &svg{}
	s.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`, width, height, width, height)
	s.printf("<title>%s</title><style>%s\n</style>", escapeXML(title), svgStyle)
	s.printf(`<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="10" markerHeight="10" markerUnits="userSpaceOnUse" orient="auto-start-reverse">` +
		`<path d="M0,1 L8,4 L0,7 z" fill="#616e7c"/></marker></defs>`)
	return s
}

// printf adds an element; text in it has to be escaped.
func (s *svg) printf(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *svg) text(x, y float64, class, text string) {
	s.printf(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, escapeXML(text))
}

func (s *svg) rect(x, y, width, height float64, class string) {
	s.printf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%d" class="%s"/>`, x, y, width, height, 3, class)
}

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	s.printf(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

// end returns the whole.
func (s *svg) end() string { return s.String() + "</svg>\n" }

// textWidth is about how wide a text is: fonts differ.
func textWidth(text string) float64 { return 8.2 * float64(utf8.RuneCountInString(text)) }

// escapeXML makes text safe inside of an element. What XML cannot hold at all
// is shown as on a terminal.
func escapeXML(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\t", " ").Replace(clean(text))
}

// stateClass is the class of a box.
func stateClass(s ipc.State) string {
	if s == "" {
		return "box missing"
	}
	return "box " + escapeXML(string(s))
}

// writePicture puts a picture into a file, or for "-" on standard output.
func (a *app) writePicture(file, picture string) error {
	if file == "-" {
		_, err := a.out.WriteString(picture)
		return err
	}
	if err := os.WriteFile(file, []byte(picture), 0o644); err != nil {
		return fmt.Errorf("cannot write the picture: %w", err)
	}
	return nil
}
