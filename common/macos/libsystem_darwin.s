#include "textflag.h"

// What libsystem_darwin.go calls: a Go function cannot have the address of one of C.

TEXT libc_waitid_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_waitid(SB)
GLOBL	·waitidAddr(SB), RODATA, $8
DATA	·waitidAddr(SB)/8, $libc_waitid_trampoline<>(SB)

TEXT libc_pthread_sigmask_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_pthread_sigmask(SB)
GLOBL	·sigmaskAddr(SB), RODATA, $8
DATA	·sigmaskAddr(SB)/8, $libc_pthread_sigmask_trampoline<>(SB)

TEXT libc_initgroups_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_initgroups(SB)
GLOBL	·initgroupsAddr(SB), RODATA, $8
DATA	·initgroupsAddr(SB)/8, $libc_initgroups_trampoline<>(SB)

TEXT libc_proc_pidinfo_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_proc_pidinfo(SB)
GLOBL	·pidinfoAddr(SB), RODATA, $8
DATA	·pidinfoAddr(SB)/8, $libc_proc_pidinfo_trampoline<>(SB)

TEXT libc_proc_pidfdinfo_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_proc_pidfdinfo(SB)
GLOBL	·pidfdinfoAddr(SB), RODATA, $8
DATA	·pidfdinfoAddr(SB)/8, $libc_proc_pidfdinfo_trampoline<>(SB)

TEXT libc_proc_pid_rusage_trampoline<>(SB),NOSPLIT,$0-0
	JMP	libc_proc_pid_rusage(SB)
GLOBL	·pidrusageAddr(SB), RODATA, $8
DATA	·pidrusageAddr(SB)/8, $libc_proc_pid_rusage_trampoline<>(SB)
