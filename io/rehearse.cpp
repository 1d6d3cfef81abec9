// Work in another process that may die of it.
#include "io/rehearse.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "engine/error.h"

namespace nc {
namespace {

// Processor seconds and memory that no honest file of this size needs; and no handler of a program
// takes the end of this process for its own.
void limit_this_process(size_t bytes) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU})
        std::signal(signal, SIG_DFL);
    const rlimit seconds = {3 + bytes / (4 << 20), 3 + bytes / (4 << 20)};
    setrlimit(RLIMIT_CPU, &seconds);
    rlim_t pages = 0;  // what there is already: a sanitizer maps more than there is memory
    if (std::FILE* here = std::fopen("/proc/self/statm", "r")) {
        unsigned long now = 0;
        if (std::fscanf(here, "%lu", &now) == 1) pages = now;
        std::fclose(here);
    }
    if (pages == 0) return;
    const rlim_t most = pages * rlim_t(sysconf(_SC_PAGESIZE)) + (rlim_t(1) << 30) + 16 * bytes;
    const rlimit memory = {most, most};
    setrlimit(RLIMIT_AS, &memory);
}

}  // namespace

// The other process's last word: "k", or "e" and what was wrong.
bool rehearse(size_t bytes, const std::string& path, const std::function<void()>& work) {
    int ends[2];
    if (pipe(ends) != 0) throw Error("[" + path + "] no pipe for another process");
    const pid_t child = fork();
    if (child < 0) {
        close(ends[0]);
        close(ends[1]);
        throw Error("[" + path + "] no other process to try the file in");
    }
    if (child == 0) {
        close(ends[0]);
        limit_this_process(bytes);
        std::string word = "k";
        try {
            work();
        } catch (const Error& e) {
            word = std::string("e") + e.what();
        } catch (const std::exception&) {
            word = "e[" + path + "] needs too much memory: it is damaged";
        }
        word.resize(std::min(word.size(), size_t(PIPE_BUF)));
        const ssize_t said = write(ends[1], word.data(), word.size());
        _exit(said == ssize_t(word.size()) ? 0 : 1);
    }
    close(ends[1]);
    std::string word;
    char part[PIPE_BUF];
    for (ssize_t n = 1; n != 0;) {
        n = ::read(ends[0], part, sizeof part);
        if (n > 0) word.append(part, size_t(n));
        if (n < 0 && errno != EINTR) break;
    }
    close(ends[0]);
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (word == "k" || word.empty()) return !word.empty();
    throw Error(word.substr(1), ErrorKind::model);
}

}  // namespace nc
