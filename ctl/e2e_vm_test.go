package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
)

// zinit as the init of a machine: QEMU boots a Debian kernel with an initial
// root file system that is made here. The processor is emulated, because
// virtual machines run these tests themselves.

const (
	// vmPatience is how long a step in a machine may take: on a busy host the
	// emulated processor is a hundred times slower than a real one.
	vmPatience = 3 * time.Minute
	// vmsAtOnce bounds the machines that run: each takes a whole processor.
	vmsAtOnce = 2
	vmMemory  = "192" // MiB
)

var vmSlots = make(chan struct{}, vmsAtOnce)

// vmCache is where .ci/test keeps a Debian system and its kernel.
func vmCache() string {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = "/var/cache"
	}
	return filepath.Join(cache, "zinit-test")
}

// vmKernel is the kernel image of all machines.
func vmKernel() string {
	if file := os.Getenv("ZINIT_TEST_KERNEL"); file != "" {
		return file
	}
	return filepath.Join(vmCache(), "vmlinuz")
}

// vmsPossible says whether stories with machines are played. Root plays them
// in any case: what is missing then is a failure.
func vmsPossible() bool {
	if os.Getuid() == 0 {
		return runtime.GOARCH == "amd64"
	}
	_, errQEMU := exec.LookPath("qemu-system-x86_64")
	_, errKernel := os.Stat(vmKernel())
	return errQEMU == nil && errKernel == nil
}

// vm is a machine that a story has started.
type vm struct {
	cmd     *exec.Cmd
	ended   chan struct{}
	release func()
	// console is where zinit's user would sit, agent the serial port of a
	// shell for the commands of the story, monitor QEMU's own.
	console, agent, monitor *vmPort
	// seen is how much of the console the story has looked at.
	seen     int
	commands int
}

// vmPort is one line into the machine. It remembers what has come.
type vmPort struct {
	conn net.Conn
	mu   sync.Mutex
	text []byte
	more chan struct{} // closed and replaced whenever text grows
	over chan struct{} // closed when nothing will come any more
}

func newVMPort(conn net.Conn) *vmPort {
	p := &vmPort{conn: conn, more: make(chan struct{}), over: make(chan struct{})}
	go p.collect()
	return p
}

func (p *vmPort) collect() {
	defer close(p.over)
	buf := make([]byte, 4096)
	for {
		n, err := p.conn.Read(buf)
		p.mu.Lock()
		// A serial line ends its lines with CR LF.
		p.text = append(p.text, bytes.ReplaceAll(buf[:n], []byte("\r"), nil)...)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits for a pattern after the first from bytes. It returns its groups
// and where it ends; nothing if it does not come.
func (p *vmPort) expect(pattern *regexp.Regexp, from int) (groups []string, end int) {
	deadline := time.After(vmPatience)
	for last := false; ; {
		p.mu.Lock()
		text, more := p.text[from:], p.more
		p.mu.Unlock()
		if at := pattern.FindSubmatchIndex(text); at != nil {
			for i := 0; i < len(at); i += 2 {
				groups = append(groups, string(text[max(at[i], 0):max(at[i+1], 0)]))
			}
			return groups, from + at[1]
		}
		if last {
			return nil, 0
		}
		select {
		case <-more:
		case <-p.over:
			last = true
		case <-deadline:
			last = true
		}
	}
}

func (p *vmPort) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.text)
}

// vmInit is the first program of a machine. It leaves a shell for the story on
// the second serial port, and becomes zinit.
const vmInit = `#!/bin/sh
setsid sh /sbin/agent <>/dev/ttyS1 >&0 2>&0 &
exec /sbin/zinit-pid1 "$@"
`

// vmAgent runs one command a line and says how it ended.
const vmAgent = `stty raw -echo
echo "agent: ready"
while read -r number line; do
	(eval "$line") </dev/null
	printf '\nend %s %s\n' "$number" "$?"
done
`

// vmUp makes a machine of the directory root and starts it.
//
//	vm-up [-disk FILE] [-forward PORT:PORT] [-append TEXT] [-without PATH] …
func vmUp(ts *testscript.TestScript, neg bool, args []string) {
	const usage = "vm-up [-disk FILE] [-forward PORT:PORT] [-append TEXT] [-without PATH] ..."
	need(ts, !neg && len(args)%2 == 0, usage)
	s := stageOf(ts)
	if s.vm != nil && !s.vm.over() {
		ts.Fatalf("the machine that was started before is still there")
	}
	// No colours, though the console is a terminal.
	kernelArgs := "console=ttyS0 quiet panic=-1 rdinit=/sbin/init NO_COLOR=1"
	argv := []string{
		// The clock of the machine counts its instructions, 2 ns each, or a busy
		// host would break the timers that its kernel measures at the start.
		"-machine", "q35,accel=tcg", "-icount", "shift=1", "-m", vmMemory, "-smp", "1", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", vmKernel(), "-initrd", ts.MkAbs("initramfs"),
	}
	var without []string
	for ; len(args) > 0; args = args[2:] {
		switch value := args[1]; args[0] {
		case "-disk":
			id := fmt.Sprintf("disk%d", len(argv))
			argv = append(argv, "-drive", "if=none,format=raw,cache=unsafe,id="+id+",file="+ts.MkAbs(value), "-device", "nvme,serial="+id+",drive="+id)
		case "-forward":
			from, to, _ := strings.Cut(value, ":")
			argv = append(argv, "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:"+from+"-:"+to, "-device", "virtio-net-pci,netdev=net")
		case "-append":
			kernelArgs += " " + value
		case "-without":
			without = append(without, value)
		default:
			ts.Fatalf("usage: %s", usage)
		}
	}
	ts.Check(writeInitramfs(ts.MkAbs("initramfs"), s.bin, ts.MkAbs("root"), without))
	m := &vm{ended: make(chan struct{})}
	var ports []*vmPort
	var listeners []net.Listener
	for _, name := range []string{"console", "agent", "monitor"} {
		file := filepath.Join(filepath.Dir(ts.Getenv("ZINIT_SOCKET")), name)
		os.Remove(file)
		l, err := net.Listen("unix", file)
		ts.Check(err)
		defer l.Close()
		listeners = append(listeners, l)
		argv = append(argv, "-chardev", "socket,id="+name+",path="+file)
	}
	argv = append(argv, "-serial", "chardev:console", "-serial", "chardev:agent", "-monitor", "chardev:monitor", "-append", kernelArgs)
	m.cmd = programCmd(ts, "qemu-system-x86_64", argv...)
	out, err := os.OpenFile(ts.MkAbs("qemu.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	ts.Check(err)
	defer out.Close()
	m.cmd.Stdout, m.cmd.Stderr = out, out
	vmSlots <- struct{}{}
	m.release = sync.OnceFunc(func() { <-vmSlots })
	if err := m.cmd.Start(); err != nil {
		m.release()
		ts.Fatalf("cannot start a virtual machine (.ci/test installs what it needs): %v", err)
	}
	s.vm = m
	go func() {
		m.cmd.Wait()
		close(m.ended)
		m.release()
	}()
	for _, l := range listeners {
		l.(*net.UnixListener).SetDeadline(time.Now().Add(vmPatience))
		go func() {
			<-m.ended
			l.Close()
		}()
		conn, err := l.Accept()
		if err != nil {
			log, _ := os.ReadFile(ts.MkAbs("qemu.log"))
			ts.Fatalf("QEMU does not start: %v\n%s", err, log)
		}
		ports = append(ports, newVMPort(conn))
	}
	m.console, m.agent, m.monitor = ports[0], ports[1], ports[2]
}

func (m *vm) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// end ends a machine with its story, and shows its console if that failed.
func (m *vm) end(t testing.TB) {
	m.cmd.Process.Kill()
	<-m.ended
	if t.Failed() && m.console != nil {
		t.Logf("the console of the machine:\n%s", m.console.all())
	}
}

func vmOf(ts *testscript.TestScript) *vm {
	m := stageOf(ts).vm
	if m == nil {
		ts.Fatalf("no vm-up before this")
	}
	return m
}

// vmConsole waits for a pattern on the console, after what the last one found.
func vmConsole(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "vm-console PATTERN")
	m := vmOf(ts)
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	groups, end := m.console.expect(pattern, m.seen)
	if groups == nil {
		ts.Fatalf("the console does not say %q", args[0])
	}
	m.seen = end
}

// vmType types a line on the console, vmKey presses keys of the keyboard.
func vmType(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg, "vm-type TEXT...")
	_, err := io.WriteString(vmOf(ts).console.conn, strings.Join(args, " ")+"\n")
	ts.Check(err)
}

func vmKey(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "vm-key KEYS")
	_, err := io.WriteString(vmOf(ts).monitor.conn, "sendkey "+args[0]+"\n")
	ts.Check(err)
}

var vmEnds = map[string]string{
	"poweroff": "reboot: Power down",
	"reboot":   "reboot: Restarting system",
	"halt":     "reboot: System halted",
	"panic":    "Kernel panic",
}

// vmEnded waits for the end of the machine, in the way that is expected.
func vmEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1 && vmEnds[args[0]] != "", "vm-ended poweroff|reboot|halt|panic")
	m := vmOf(ts)
	anyEnd := regexp.MustCompile("(" + vmEnds["poweroff"] + "|" + vmEnds["reboot"] + "|" + vmEnds["halt"] + "|" + vmEnds["panic"] + ")")
	groups, _ := m.console.expect(anyEnd, 0)
	if groups == nil {
		ts.Fatalf("the machine does not end")
	}
	if groups[0] != vmEnds[args[0]] {
		ts.Fatalf("the machine has ended with %q, expected %q", groups[0], vmEnds[args[0]])
	}
	if args[0] == "halt" {
		m.cmd.Process.Kill() // a halted machine stays as it is
	}
	select {
	case <-m.ended:
	case <-time.After(vmPatience):
		ts.Fatalf("QEMU does not end")
	}
}

// vmRun runs a command in the machine, and returns its output and exit code.
func (m *vm) run(command string) (output string, code int, err error) {
	if groups, _ := m.agent.expect(regexp.MustCompile("agent: ready\n"), 0); groups == nil {
		return "", 0, fmt.Errorf("the machine does not take commands")
	}
	m.commands++
	from := len(m.agent.all())
	if _, err := fmt.Fprintf(m.agent.conn, "%d %s\n", m.commands, command); err != nil {
		return "", 0, err
	}
	end := regexp.MustCompile(fmt.Sprintf(`(?s)\A(.*)\nend %d (\d+)\n`, m.commands))
	groups, _ := m.agent.expect(end, from)
	if groups == nil {
		select {
		case <-m.agent.over: // it was the command to end the machine
			return "", 0, nil
		default:
			return "", 0, fmt.Errorf("the machine does not answer")
		}
	}
	code, err = strconv.Atoi(groups[2])
	return groups[1], code, err
}

// checkVM runs a shell command in the machine, which has to succeed. Its
// output is what stdout looks at.
func checkVM(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	output, code, err := vmOf(ts).run(strings.Join(args, " "))
	ts.Check(err)
	io.WriteString(ts.Stdout(), output)
	if code != 0 {
		return fmt.Errorf("%s: exit code %d:\n%s", strings.Join(args, " "), code, output)
	}
	return nil
}

// vmDisk makes a disk with an ext4 file system: vm-disk FILE MIB [DIR].
func vmDisk(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2 && len(args) <= 3, "vm-disk FILE MIB [DIR]")
	// Without lazy initialisation, with which the kernel would go on writing.
	argv := []string{"-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"}
	if len(args) == 3 {
		argv = append(argv, "-d", ts.MkAbs(args[2]))
	}
	argv = append(argv, ts.MkAbs(args[0]), args[1]+"M")
	if out, err := programCmd(ts, "mke2fs", argv...).CombinedOutput(); err != nil {
		ts.Fatalf("cannot make a disk: %v\n%s", err, out)
	}
}

// vmDebian makes a directory of the Debian system that .ci/test keeps, beside
// what is in it already, and installs zinit there: vm-debian DIR.
func vmDebian(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "vm-debian DIR")
	root := ts.MkAbs(args[0])
	argv := []string{"-a", "--no-clobber", filepath.Join(vmCache(), "debian") + "/.", root}
	if out, err := programCmd(ts, "cp", argv...).CombinedOutput(); err != nil {
		ts.Fatalf("cannot copy the Debian system (.ci/test makes it): %v\n%s", err, out)
	}
	for _, program := range []string{"zinit-pid1", "zinit-server", "zinit-healthd", "zinit-proxyd", "zinit"} {
		data, err := os.ReadFile(filepath.Join(stageOf(ts).bin, program))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(root, "usr/bin", program), data, 0o755))
	}
	unit, err := os.ReadFile("../docs/zinit.service")
	ts.Check(err)
	unit = bytes.ReplaceAll(unit, []byte("/usr/local"), []byte("/usr"))
	ts.Check(os.WriteFile(filepath.Join(root, "usr/lib/systemd/system/zinit.service"), unit, 0o644))
}

// docs/vm.md shows how such a system is made; its services are those of a story.
func TestMachinePageShowsTheStory(t *testing.T) {
	page, err := os.ReadFile("../docs/vm.md")
	if err != nil {
		t.Fatal(err)
	}
	story, err := txtar.ParseFile("../testdata/vm-debian.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range story.Files {
		if path, ok := strings.CutPrefix(f.Name, "disk"); ok && strings.HasSuffix(path, ".toml") &&
			!bytes.Contains(page, []byte("```toml\n# "+path+"\n"+string(f.Data)+"```\n")) {
			t.Errorf("docs/vm.md does not show %s as it is:\n%s", path, f.Data)
		}
	}
}

// writeInitramfs writes the initial root file system of a machine: busybox,
// zinit, and what is in the directory root, which comes last and so may
// replace all else.
func writeInitramfs(file, bin, root string, without []string) error {
	entries := map[string]cpioEntry{}
	for _, dir := range []string{"bin", "sbin", "dev", "proc", "sys", "run", "etc", "mnt", "root", "tmp", "var"} {
		entries[dir] = cpioEntry{mode: unix.S_IFDIR | 0o755}
	}
	for name, minor := range map[string]uint32{"console": 5<<8 | 1, "null": 1<<8 | 3, "ttyS1": 4<<8 | 65} {
		entries["dev/"+name] = cpioEntry{mode: unix.S_IFCHR | 0o600, device: minor}
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("cannot list what busybox can do: %w", err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		entries["bin/"+applet] = cpioEntry{mode: unix.S_IFLNK | 0o777, data: []byte("/bin/busybox")}
	}
	for name, from := range map[string]string{
		"bin/busybox": "/bin/busybox", "bin/zinit": bin + "/zinit",
		"sbin/zinit-pid1": bin + "/zinit-pid1", "sbin/zinit-server": bin + "/zinit-server",
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		entries[name] = cpioEntry{mode: unix.S_IFREG | 0o755, data: data}
	}
	entries["sbin/init"] = cpioEntry{mode: unix.S_IFREG | 0o755, data: []byte(vmInit)}
	entries["sbin/agent"] = cpioEntry{mode: unix.S_IFREG | 0o755, data: []byte(vmAgent)}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, name)
		switch {
		case os.IsNotExist(err) || rel == ".":
			return nil
		case err != nil:
			return err
		case d.IsDir():
			entries[rel] = cpioEntry{mode: unix.S_IFDIR | 0o755}
			return nil
		}
		data, err := os.ReadFile(name)
		entries[rel] = cpioEntry{mode: unix.S_IFREG | 0o755, data: data}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range without {
		delete(entries, strings.TrimPrefix(path.Clean(name), "/"))
	}
	return writeCpio(file, entries)
}

// cpioEntry is one file of an archive.
type cpioEntry struct {
	mode, device uint32 // major number << 8 | minor number
	data         []byte // of a link, where it points to
}

// writeCpio writes an archive in the format newc, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes it.
func writeCpio(file string, entries map[string]cpioEntry) error {
	var b bytes.Buffer
	inode := 0
	put := func(name string, e cpioEntry) {
		inode++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", inode, e.mode, 0, 0, 1, 0,
			len(e.data), 0, 0, e.device>>8, e.device&0xff, len(name)+1, 0)
		pad := func() { b.Write(make([]byte, -b.Len()&3)) }
		b.WriteString(name + "\x00")
		pad()
		b.Write(e.data)
		pad()
	}
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names) // a directory before what is in it
	for _, name := range names {
		put(name, entries[name])
	}
	put("TRAILER!!!", cpioEntry{})
	return os.WriteFile(file, b.Bytes(), 0o644)
}
