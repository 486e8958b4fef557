// Package paths says where zinit keeps its things: the service directory, the
// system directory, the control socket and the runtime directory. Server and
// client find the same socket because both walk the same list of places here.
//
// A flag beats the environment and the environment beats the default. An
// empty flag or variable counts as not set.
//
// The functions read the environment and the file system and keep nothing, so
// they may be called from any goroutine. The tests run them on a system of
// their own below a temporary directory.
package paths

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Paths are the places of one supervisor, all absolute.
type Paths struct {
	// Socket is where clients connect.
	Socket string
	// RuntimeDir holds the state, log segments, notify and helper sockets. It
	// exists, belongs to this user and is writable by nobody else. Its mode is
	// 0711 where it was made here: services of other users reach their notify
	// sockets in it.
	RuntimeDir string
}

// system is the part of the world that the answers depend on.
type system struct {
	goos          string
	uid           int
	getenv        func(string) string
	etc           string
	run, shm, tmp string
}

func here() system {
	return system{
		goos: runtime.GOOS, uid: os.Getuid(), getenv: os.Getenv,
		etc: "/etc/zinit", run: "/run", shm: "/dev/shm", tmp: "/tmp",
	}
}

// Server returns the places of a supervisor with these values of --socket and
// --runtime-dir, and creates the directories. A place that was asked for has
// to work; where none was, the first of the defaults that can be written is
// taken, and notice says in words which one and why, unless it is the first.
func Server(socketFlag, runtimeDirFlag string) (p Paths, notice string, err error) {
	return here().server(socketFlag, runtimeDirFlag)
}

// Client returns the control socket to connect to with this value of --socket.
// Without flag and environment that is the first default place with a socket
// in it: the system's, then the user's; socket is "" if there is none. tried
// lists the places that were looked at, in order, for a message.
func Client(socketFlag string) (socket string, tried []string) {
	return here().client(socketFlag)
}

// ConfigDir returns the service directory with this value of --config-dir.
// system asks for the default of a machine or a container as a whole, whoever
// the user is, instead of the user's own. The directory need not exist.
func ConfigDir(flag string, system bool) (string, error) {
	return here().configDir(flag, system)
}

// SystemDir returns the directory of system services with this value of
// --system-dir, or "" where there is none: for users other than root unless
// system is set, and on macOS.
func SystemDir(flag string, system bool) (string, error) {
	return here().systemDir(flag, system)
}

// place is one default: a directory for the socket and the runtime directory.
type place struct {
	dir string
	// make creates the directory when it is missing, parents too on macOS.
	make bool
	// mode is that of a directory that is made.
	mode fs.FileMode
	// private has the directory belong to this user: it stands where others
	// may write, or its name comes from the environment.
	private bool
}

func (pl place) socket() string { return filepath.Join(pl.dir, "zinit.sock") }

// places lists the defaults of a server in order.
func (s system) places() []place {
	var list []place
	switch {
	case s.goos == "darwin":
		if home := s.getenv("HOME"); filepath.IsAbs(home) {
			list = append(list, place{dir: filepath.Join(home, "hero", "var"), make: true, mode: 0o755})
		}
	case s.uid == 0:
		list = append(list, place{dir: s.run})
	}
	// The XDG base directory specification asks for an absolute path and a
	// directory that belongs to the user; one left over from before a change
	// of user is passed over.
	if dir := s.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		list = append(list, place{dir: filepath.Clean(dir), private: true})
	}
	// Root's services may run as other users, who have to get through to
	// their notify sockets.
	mode := fs.FileMode(0o700)
	if s.uid == 0 {
		mode = 0o711
	}
	name := fmt.Sprintf("zinit-%d", s.uid)
	for _, base := range []string{s.shm, s.tmp} {
		list = append(list, place{dir: filepath.Join(base, name), make: true, mode: mode, private: true})
	}
	return list
}

func (s system) server(socketFlag, runtimeDirFlag string) (Paths, string, error) {
	if socket := cmp.Or(socketFlag, s.getenv("ZINIT_SOCKET")); socket != "" {
		p, err := s.given(socket, runtimeDirFlag)
		return p, "", err
	}
	if runtimeDirFlag != "" { // or each place would fail for it
		if _, err := s.finish("", runtimeDirFlag); err != nil {
			return Paths{}, "", err
		}
	}
	var failed []error
	for _, pl := range s.places() {
		p, err := s.try(pl, runtimeDirFlag)
		switch {
		case err != nil:
			failed = append(failed, err)
		case len(failed) > 0:
			return p, fmt.Sprintf("%v; the control socket is %s, the runtime directory %s",
				failed[0], p.Socket, p.RuntimeDir), nil
		default:
			return p, s.usualMissing(p), nil
		}
	}
	return Paths{}, "", fmt.Errorf("cannot find a place for the control socket, choose one with --socket: %w", errors.Join(failed...))
}

// usualMissing is the notice for an ordinary user whose usual place has no
// name: it is not that it could not be written.
func (s system) usualMissing(p Paths) string {
	if s.goos == "darwin" || s.uid == 0 || s.getenv("XDG_RUNTIME_DIR") != "" {
		return ""
	}
	return fmt.Sprintf("XDG_RUNTIME_DIR is not set; the control socket is %s, the runtime directory %s", p.Socket, p.RuntimeDir)
}

// given makes the directories for a socket that was asked for.
func (s system) given(socket, runtimeDir string) (Paths, error) {
	socket, err := filepath.Abs(socket)
	if err != nil {
		return Paths{}, fmt.Errorf("cannot use socket %s: %w", socket, err)
	}
	// Found out later, it would leave a runtime directory beside that file.
	if file, err := os.Lstat(socket); err == nil && file.Mode().Type() != fs.ModeSocket {
		return Paths{}, fmt.Errorf("cannot make the control socket %s: there is a file of that name, which is no socket: move it away, or choose another place with --socket", socket)
	}
	if err := makeDirs(filepath.Dir(socket)); err != nil {
		return Paths{}, fmt.Errorf("cannot create the directory of the control socket: %w", err)
	}
	return s.finish(socket, runtimeDir)
}

// try makes the directories of one default place.
func (s system) try(pl place, runtimeDir string) (Paths, error) {
	if pl.make {
		if s.goos == "darwin" && !pl.private {
			if err := makeDirs(filepath.Dir(pl.dir)); err != nil {
				return Paths{}, err
			}
		}
		if err := makeDir(pl.dir, pl.mode); err != nil {
			return Paths{}, err
		}
	}
	if pl.private {
		if err := s.checkOwn(pl.dir); err != nil {
			return Paths{}, err
		}
	}
	if err := checkWritable(pl.dir); err != nil {
		return Paths{}, err
	}
	return s.finish(pl.socket(), runtimeDir)
}

// finish adds the runtime directory, whose parent exists unless it was asked
// for.
func (s system) finish(socket, runtimeDir string) (Paths, error) {
	if runtimeDir == "" {
		runtimeDir = runtimeDirOf(socket)
	} else {
		abs, err := filepath.Abs(runtimeDir)
		if err != nil {
			return Paths{}, fmt.Errorf("cannot use runtime directory %s: %w", runtimeDir, err)
		}
		if err := makeDirs(filepath.Dir(abs)); err != nil {
			return Paths{}, fmt.Errorf("cannot create the runtime directory: %w", err)
		}
		runtimeDir = abs
	}
	if err := makeDir(runtimeDir, 0o711); err != nil {
		return Paths{}, err
	}
	if err := s.checkOwn(runtimeDir); err != nil {
		return Paths{}, err
	}
	if err := checkWritable(runtimeDir); err != nil {
		return Paths{}, err
	}
	return Paths{Socket: socket, RuntimeDir: runtimeDir}, nil
}

// runtimeDirOf derives X from X.sock, and X.d from any other X.
func runtimeDirOf(socket string) string {
	if dir, ok := strings.CutSuffix(socket, ".sock"); ok && filepath.Base(socket) != ".sock" {
		return dir
	}
	return socket + ".d"
}

// makeDirs creates a directory and its parents, which services of other users
// may have to get through.
func makeDirs(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	return makeDir(dir, 0o755)
}

// makeDir creates a directory, unless there is something of that name. The
// mode is set apart from mkdir(2), which the umask would narrow.
func makeDir(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode&0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil && mode != mode&0o700 {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", dir, bare(err))
	}
	return nil
}

// checkOwn refuses what someone else may have put there or could put
// something into: a symbolic link, another user's directory, a mode that lets
// others write. What passes stays, because in a sticky directory nobody else
// can rename it.
func (s system) checkOwn(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("cannot use %s: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fmt.Errorf("cannot use %s: it is a symbolic link, not a directory", dir)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("cannot use %s: it is not a directory", dir)
	case int(st.Uid) != s.uid:
		return fmt.Errorf("cannot use %s: it belongs to uid %d, not to %d", dir, st.Uid, s.uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("cannot use %s: others may write there (mode %#o)", dir, st.Mode&0o7777)
	}
	return nil
}

// checkWritable asks the kernel, which knows of read-only mounts, too.
func checkWritable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot write in %s: %w", dir, err)
	}
	return nil
}

func (s system) client(socketFlag string) (string, []string) {
	if socket := cmp.Or(socketFlag, s.getenv("ZINIT_SOCKET")); socket != "" {
		return socket, []string{socket}
	}
	list := s.places()
	if s.goos != "darwin" && s.uid != 0 {
		list = append([]place{{dir: s.run}}, list...)
	}
	var tried []string
	for _, pl := range list {
		tried = append(tried, pl.socket())
		if pl.private && s.checkOwn(pl.dir) != nil {
			continue
		}
		if fi, err := os.Lstat(pl.socket()); err == nil && fi.Mode().Type() == fs.ModeSocket {
			return pl.socket(), tried
		}
	}
	return "", tried
}

func (s system) configDir(flag string, system bool) (string, error) {
	if dir := cmp.Or(flag, s.getenv("ZINIT_CONFIG_DIR")); dir != "" {
		return abs(dir)
	}
	home := s.getenv("HOME")
	switch {
	case s.goos == "darwin":
		if filepath.IsAbs(home) {
			return filepath.Join(home, "hero", "cfg", "zinit"), nil
		}
		return "", errors.New("cannot tell the service directory: HOME is not set to an absolute path; choose one with --config-dir")
	case s.uid == 0 || system:
		return filepath.Join(s.etc, "services"), nil
	}
	if dir := s.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "zinit", "services"), nil
	}
	if filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "zinit", "services"), nil
	}
	return "", errors.New("cannot tell the service directory: neither XDG_CONFIG_HOME nor HOME is set to an absolute path; choose one with --config-dir")
}

func (s system) systemDir(flag string, system bool) (string, error) {
	switch {
	case flag != "":
		return abs(flag)
	case s.goos == "darwin" || s.uid != 0 && !system:
		return "", nil
	}
	return filepath.Join(s.etc, "system"), nil
}

func abs(dir string) (string, error) {
	a, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cannot use directory %s: %w", dir, err)
	}
	return a, nil
}

// bare takes the path off an error whose message names it already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
