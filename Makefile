# zinit: a process supervisor. `make run` tries it, `make test` proves it.

VERSION  ?= 0.1.0-dev
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 20s
SEED     ?= 0

GO       ?= go
LDFLAGS  := -s -w -X github.com/threefoldtech/zinit/common/version.Version=$(VERSION)
PROGRAMS := zinit-pid1=pid1 zinit-server=supervisord zinit-healthd=healthd zinit-proxyd=proxyd zinit=ctl
EXAMPLES := testdata/examples
MANPAGES := $(notdir $(wildcard docs/man/*))
DEST     := $(DESTDIR)$(PREFIX)
COMPLETION := bash=bash-completion/completions/zinit zsh=zsh/site-functions/_zinit fish=fish/vendor_completions.d/zinit.fish

.PHONY: build run play-tui test lint bench bench-scale bench-peers storm compare-init compare-proxies fuzz install uninstall pictures clean help

build: ## build the programs into bin/
	@mkdir -p bin
	@for p in $(PROGRAMS); do \
		CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/$${p%%=*} ./$${p##*=} || exit 1; \
	done

run: build ## start a supervisor with sample services, and say what to type next
	@testdata/examples/run.sh bin $(EXAMPLES)

play-tui: build ## the full screen with the sample services, in a place of its own
	@testdata/examples/play-tui.sh bin $(EXAMPLES)

test: ## all tests, also what needs root or Debian packages; installs those when root
	@.ci/test

lint: ## formatting, vet, staticcheck, and a build for each platform
	@.ci/lint

bench: build ## measure side by side with C floors, print a table
	@ZINIT_TEST_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench Zinit -benchtime 1x -timeout 10m ./ctl

storm: ## kill the supervisor more than 500 times while everything goes on, print a table; SEED=N for one seen before
	@nice -n 5 $(GO) test -count=1 -timeout 1h -run '^TestStorm$$' -v ./ctl -storm.kills 800 -storm.seed $(SEED)

bench-scale: build ## what one more service costs, with up to 8,000 of them, a table
	@ZINIT_TEST_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench Scale -benchtime 1x -timeout 10m ./ctl

bench-peers: build ## zinit beside other supervisors, those that are installed, a table and a picture
	@ZINIT_TEST_BIN=$(CURDIR)/bin PATH=$(CURDIR)/bin:$$PATH $(GO) test -run '^$$' -bench Peers -benchtime 1x -timeout 1h ./ctl -bench.svg $(CURDIR)/docs/pictures/benchmarks.svg

compare-init: build ## zinit beside tini, dumb-init and catatonit (those Debian packages), a table
	@ZINIT_TEST_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench Inits -benchtime 1x -timeout 10m ./ctl

compare-proxies: build ## zinit-proxyd beside HAProxy, nginx, socat and systemd-socket-proxyd, a table
	@ZINIT_TEST_BIN=$(CURDIR)/bin $(GO) test -run '^$$' -bench Proxies -benchtime 1x -timeout 20m ./ctl

fuzz: ## each fuzz target for FUZZTIME
	@.ci/fuzz $(FUZZTIME)

# Root seldom has Go in its PATH: then what has been built before is installed.
install: $(if $(shell command -v $(GO)),build) ## install programs, man pages, completion and a systemd unit below PREFIX
	install -d "$(DEST)/bin" "$(DEST)/share/man/man1" "$(DEST)/share/man/man5" "$(DEST)/share/man/man8" "$(DEST)/lib/systemd/system"
	for p in $(PROGRAMS); do install -m 755 bin/$${p%%=*} "$(DEST)/bin/$${p%%=*}" || exit 1; done
	for m in $(MANPAGES); do install -m 644 docs/man/$$m "$(DEST)/share/man/man$${m##*.}/$$m" || exit 1; done
	for s in $(COMPLETION); do \
		f="$(DEST)/share/$${s#*=}"; install -d "$${f%/*}" && bin/zinit completion $${s%%=*} >"$$f" && chmod 644 "$$f" || exit 1; \
	done
	f="$(DEST)/lib/systemd/system/zinit.service"; sed 's|/usr/local|$(PREFIX)|' docs/zinit.service >"$$f" && chmod 644 "$$f"

uninstall: ## remove what install has installed; services, logs and state stay
	for p in $(PROGRAMS); do rm -f "$(DEST)/bin/$${p%%=*}"; done
	for m in $(MANPAGES); do rm -f "$(DEST)/share/man/man$${m##*.}/$$m"; done
	for s in $(COMPLETION); do rm -f "$(DEST)/share/$${s#*=}"; done
	rm -f "$(DEST)/lib/systemd/system/zinit.service"

pictures: ## draw the pictures of the docs anew, from a real zinit
	$(GO) test ./ctl -count=1 -run PicturesOfDocs -update

clean: ## remove what was built
	rm -rf bin

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16
