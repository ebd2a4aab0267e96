// Included before every source of a wheel, so that the wheel runs with glibc 2.28 and libstdc++ of
// GCC 8, as torch's wheels do, although a newer system builds it: names older versions of the
// symbols that would otherwise require newer ones. x86-64 only.
#pragma once

// Since glibc 2.29, exp and log set errno without a wrapper; since 2.34, libpthread is part of
// libc; since GCC 12, wait() is noexcept.
__asm__(".symver exp,exp@GLIBC_2.2.5");
__asm__(".symver log,log@GLIBC_2.2.5");
__asm__(".symver pthread_mutex_trylock,pthread_mutex_trylock@GLIBC_2.2.5");
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");

// In glibc 2.32 and later: true while the process has one thread, in which libstdc++ then counts
// references without atomic operations. This one, private to the library, is always false.
extern "C" {
__attribute__((weak, visibility("hidden"))) char __libc_single_threaded = 0;
}
