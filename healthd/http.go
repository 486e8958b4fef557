package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

// maxHead bounds the status line and the headers of an answer, in bytes.
const maxHead = 64 << 10

// probeHTTP sends one request on a connection of its own and reads the head of
// the answer. The body does not matter, redirects are not followed, and no proxy
// is asked: it is this server that is looked at.
func probeHTTP(ctx context.Context, p ipc.Probe) (string, error) {
	network, address, u, err := parseEndpoint(p.Endpoint)
	if err != nil {
		return "", err
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer func() { conn.Close() }()
	if u.Scheme == "https" {
		t := tls.Client(conn, &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: p.Insecure})
		if err := t.HandshakeContext(ctx); err != nil {
			return "", &stageError{doing: "the TLS handshake with " + address, err: err}
		}
		conn = t
	}
	req := &http.Request{Method: p.Method, URL: u, Host: u.Host, Header: http.Header{}, Close: true}
	req.Header.Set("User-Agent", "zinit-healthd/"+version.Version)
	for name, value := range p.Headers {
		if strings.EqualFold(name, "Host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	if err := req.Write(conn); err != nil {
		return "", &stageError{doing: "sending the request", err: err}
	}
	status, code, err := readStatus(conn, req)
	if err != nil {
		return "", &stageError{doing: "the answer", err: err}
	}
	switch {
	case slices.Contains(p.Expect, code), len(p.Expect) == 0 && code >= 200 && code < 400:
		return status, nil
	case len(p.Expect) == 0:
		return "", fmt.Errorf("%s, expected 2xx or 3xx", status)
	}
	return "", fmt.Errorf("%s, expected %s", status, strings.Trim(fmt.Sprint(p.Expect), "[]"))
}

// parseEndpoint reads an URL, or unix:/path:/url.
func parseEndpoint(endpoint string) (network, address string, u *url.URL, err error) {
	if rest, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		path, target, _ := strings.Cut(rest, ":")
		u, err = url.Parse("http://localhost" + target)
		return "unix", path, u, err
	}
	if u, err = url.Parse(endpoint); err != nil {
		return "", "", nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return "tcp", net.JoinHostPort(u.Hostname(), port), u, nil
}

// readStatus reads the head of the answer, past those that only say that it is
// yet to come (RFC 9110, 15.2).
func readStatus(conn net.Conn, req *http.Request) (string, int, error) {
	limit := &io.LimitedReader{R: conn, N: maxHead}
	buf := bufio.NewReader(limit)
	for {
		resp, err := http.ReadResponse(buf, req)
		switch {
		case err != nil && limit.N == 0:
			return "", 0, fmt.Errorf("its head is longer than %d KiB", maxHead>>10)
		case errors.Is(err, io.ErrUnexpectedEOF), err == io.EOF:
			return "", 0, errors.New("the connection was closed before it was complete")
		case err != nil:
			return "", 0, err
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			return strings.TrimSpace(resp.Status), resp.StatusCode, nil
		}
	}
}
