package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// As much of an HTTP/1.1 server as it takes to answer a GET and hang up
// (RFC 9112): net/http, linked in for it, would cost every supervisor memory
// that most never use.

const (
	// httpClients bounds the connections that are served at a time, the others
	// wait in the backlog. A client may take headTime for its request, and
	// httpTime for all.
	httpClients = 32
	headTime    = 3 * time.Second
	httpTime    = 10 * time.Second
	// httpHead is the largest request, in bytes.
	httpHead = 8 << 10
)

// page is an answer.
type page struct {
	status int // 200, 400, 404, 405, 503
	kind   string
	body   string
}

func plainPage(status int, body string) page {
	return page{status, "text/plain; charset=utf-8", body + "\n"}
}

var statusWords = map[int]string{
	200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable",
}

// httpRequest is what is looked at of a request.
type httpRequest struct {
	method string
	path   string // without the query
	accept string // the Accept headers, "" without
}

// httpServer answers requests for pages.
type httpServer struct {
	get func(context.Context, httpRequest) page
	// headTime is how long a client may take for its request.
	headTime time.Duration
}

// serve answers on a listener until that is closed.
func (h httpServer) serve(l net.Listener) {
	free := make(chan struct{}, httpClients)
	for {
		free <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			<-free
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, or a client that has gone already: the next may
			// fare better.
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			h.answer(conn)
			<-free
		}()
	}
}

// answer answers one request.
func (h httpServer) answer(conn net.Conn) {
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(httpTime))
	conn.SetReadDeadline(time.Now().Add(h.headTime))
	ctx, cancel := context.WithTimeout(context.Background(), httpTime)
	defer cancel()
	r, err := readRequest(conn)
	var p page
	switch {
	case errors.Is(err, errBadRequest):
		p = plainPage(400, err.Error())
	case err != nil:
		return // it has gone, or says nothing
	case r.method != "GET" && r.method != "HEAD":
		p = plainPage(405, "only GET and HEAD are answered")
	default:
		p = h.get(ctx, r)
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n",
		p.status, statusWords[p.status], p.kind, len(p.body))
	if p.status == 405 {
		head += "Allow: GET, HEAD\r\n"
	}
	if r.method == "HEAD" {
		p.body = ""
	}
	if _, err := io.WriteString(conn, head+"\r\n"+p.body); err != nil {
		return
	}
	// Closed with something unread, the answer would be lost (RFC 9112, 9.6).
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
		conn.SetReadDeadline(time.Now().Add(time.Second))
		io.CopyN(io.Discard, conn, httpHead)
	}
}

var errBadRequest = errors.New("not a request that is understood here")

// readRequest reads a request up to its empty line.
func readRequest(from io.Reader) (r httpRequest, err error) {
	// With one byte more than may be there, an end is told from a limit.
	limited := &io.LimitedReader{R: from, N: httpHead + 1}
	lines := bufio.NewReaderSize(limited, 1024)
	for first := true; ; first = false {
		line, err := lines.ReadString('\n')
		switch {
		case limited.N == 0:
			return httpRequest{}, fmt.Errorf("%w: larger than %d bytes", errBadRequest, httpHead)
		case err != nil:
			return httpRequest{}, err
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" && !first {
			return r, nil
		}
		if !first {
			name, value, _ := strings.Cut(line, ":")
			if strings.EqualFold(name, "Accept") {
				r.accept += "," + value
			}
			continue
		}
		words := strings.Split(line, " ")
		if len(words) != 3 || !strings.HasPrefix(words[1], "/") || !strings.HasPrefix(words[2], "HTTP/1.") {
			return httpRequest{}, errBadRequest
		}
		r.method = words[0]
		r.path, _, _ = strings.Cut(words[1], "?")
	}
}

// listenMetrics serves what --metrics asks for. The listener is in pid1's
// store, so that nobody else can take the address while the supervisor is
// replaced.
func (s *server) listenMetrics() error {
	const stored = "listen/metrics"
	if s.opts.metrics == "" {
		return nil
	}
	if fd, ok := s.keeper.take(stored); ok {
		file := os.NewFile(uintptr(fd), stored)
		defer file.Close()
		l, err := net.FileListener(file)
		if err != nil {
			return fmt.Errorf("cannot go on serving metrics on %s: %w", s.opts.metrics, err)
		}
		go httpServer{s.page, headTime}.serve(l)
		return nil
	}
	l, err := net.Listen("tcp", s.opts.metrics)
	if err != nil {
		return fmt.Errorf("cannot serve metrics (--metrics): %w", err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return fmt.Errorf("cannot serve metrics on %s: %w", s.opts.metrics, err)
	}
	defer file.Close()
	if err := s.keeper.store(stored, int(file.Fd())); err != nil {
		return err
	}
	s.log.Info("serving metrics", "address", l.Addr().String())
	go httpServer{s.page, headTime}.serve(l)
	return nil
}
