// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// A program of its own, copied into an ELF file by program(): it has no stack
// but the kernel's, no runtime and one thread. What it needs is at stepData,
// in the order of stepHead.

// func step()
TEXT ·step(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ 0(SP), R13          // argc
	LEAQ 8(SP), R14          // argv
	LEAQ 16(SP)(R13*8), R15  // envp: behind argv and its NULL
	MOVQ $0x400800, R12      // stepData

	MOVQ 0(R12), DI          // setns(fd, CLONE_NEWUSER)
	MOVQ $0x10000000, SI
	MOVQ $308, AX
	SYSCALL
	TESTQ AX, AX
	JNE  failed

	MOVQ $3, AX              // close(fd)
	MOVQ 0(R12), DI
	SYSCALL

	MOVQ $0, DI              // setgroups(0, NULL): denied where only one id is mapped
	MOVQ $0, SI
	MOVQ $116, AX
	SYSCALL

	MOVQ $0, DI              // setresgid(0, 0, 0)
	MOVQ $0, SI
	MOVQ $0, DX
	MOVQ $119, AX
	SYSCALL
	TESTQ AX, AX
	JNE  failed

	MOVQ $0, DI              // setresuid(0, 0, 0)
	MOVQ $0, SI
	MOVQ $0, DX
	MOVQ $117, AX
	SYSCALL
	TESTQ AX, AX
	JNE  failed

	MOVQ $0x20000, DI        // unshare(CLONE_NEWNS)
	MOVQ $272, AX
	SYSCALL
	TESTQ AX, AX
	JNE  failed

	LEAQ 24(R12), DI         // execve(path, argv, envp)
	MOVQ R14, SI
	MOVQ R15, DX
	MOVQ $59, AX
	SYSCALL

failed:
	MOVQ $2, DI              // write(2, message, length)
	MOVQ 8(R12), SI
	MOVQ 16(R12), DX
	MOVQ $1, AX
	SYSCALL
	MOVQ $125, DI            // exit_group(125)
	MOVQ $231, AX
	SYSCALL
	INT $3

// func stepAddress() uintptr
TEXT ·stepAddress(SB), NOSPLIT, $0-8
	MOVQ $·step(SB), AX
	MOVQ AX, ret+0(FP)
	RET
