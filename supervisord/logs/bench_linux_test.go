package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCapture moves what a process writes in 4 KiB chunks through a
// capture, and through a bare splice loop for comparison.
func BenchmarkCapture(b *testing.B) {
	const total = 1 << 30
	flood := func(b *testing.B, w *os.File) time.Time {
		cmd := helper(b, fmt.Sprintf("flood %d 4096", total), w)
		start := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		w.Close()
		b.Cleanup(func() { cmd.Wait() })
		return start
	}
	report := func(b *testing.B, d time.Duration) {
		b.ReportMetric(float64(total)*float64(b.N)/1e6/d.Seconds(), "MB/s")
		b.ReportMetric(0, "ns/op")
	}
	shm := func(b *testing.B) string {
		dir, err := os.MkdirTemp("/dev/shm", "zinit-logs")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	bare := func(b *testing.B, size int64) {
		var took time.Duration
		for range b.N {
			r, w := pipePair(b)
			file, err := os.Create(filepath.Join(shm(b), "log"))
			if err != nil {
				b.Fatal(err)
			}
			start := flood(b, w)
			for at := int64(0); ; {
				n, err := unix.Splice(r, nil, int(file.Fd()), &at, 1<<20, unix.SPLICE_F_MOVE)
				if err != nil {
					b.Fatal(err)
				}
				if n == 0 {
					break
				}
				at %= size
			}
			took += time.Since(start)
			file.Close()
			os.Remove(file.Name())
			unix.Close(r)
		}
		report(b, took)
	}
	// The whole gigabyte in one file; and over and over the same pages, which
	// no log can that keeps a last line.
	b.Run("splice", func(b *testing.B) { bare(b, total+1) })
	b.Run("splice-in-place", func(b *testing.B) { bare(b, 8<<20) })
	b.Run("capture", func(b *testing.B) {
		var took time.Duration
		for i := range b.N {
			f := open(b, Options{Dir: shm(b)})
			start := flood(b, f.add("web", uint64(i), Stdout))
			<-f.eof
			took += time.Since(start)
			f.Close()
		}
		report(b, took)
	})
}

// BenchmarkLogFile writes lines of 100 bytes of a fast service to a log file
// that it waits for, and copies them there by a plain loop for comparison.
func BenchmarkLogFile(b *testing.B) {
	const total = 256 << 20
	flood := func(b *testing.B, w *os.File) {
		cmd := helper(b, fmt.Sprintf("flood %d 4000", total), w)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		w.Close()
		b.Cleanup(func() { cmd.Wait() })
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(total)*float64(b.N)/1e6/b.Elapsed().Seconds(), "MB/s")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("copy", func(b *testing.B) {
		for range b.N {
			r, w := pipePair(b)
			file, err := os.Create(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			flood(b, w)
			buf := make([]byte, 64<<10)
			for {
				n, err := unix.Read(r, buf)
				if err != nil {
					b.Fatal(err)
				}
				if n == 0 {
					break
				}
				if _, err := file.Write(buf[:n]); err != nil {
					b.Fatal(err)
				}
			}
			file.Close()
			unix.Close(r)
		}
		report(b)
	})
	b.Run("logfile", func(b *testing.B) {
		for i := range b.N {
			dir, err := os.MkdirTemp("/dev/shm", "zinit-logs")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { os.RemoveAll(dir) })
			f := open(b, Options{Dir: dir})
			f.setFile("web", FileOptions{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 10 << 20, MaxFiles: 5, Block: true})
			flood(b, f.add("web", uint64(i), Stdout))
			<-f.eof
			f.Flush(time.Minute)
			f.Close()
		}
		report(b)
	})
}
