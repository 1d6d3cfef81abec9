// The pickle machine: a stack of values, marks on it and a memo; see pickletools in Python's
// library for the opcodes.
#include "io/pickle.h"

#include <bit>
#include <unordered_map>

#include "io/bytes.h"

namespace nc {

using Kind = PickleValue::Kind;

namespace {
constexpr size_t most_values = size_t(1) << 20;
}

class PickleMachine {
 public:
    PickleMachine(Pickle& out, const std::vector<uint8_t>& bytes, const std::string& path,
                  const Pickle::Allow& allow, const std::string& hint)
        : out_(out),
          data_(bytes.data()),
          in_(bytes.data(), bytes.size(), path, ErrorKind::model),
          path_(path),
          allow_(allow),
          hint_(hint) {}

    void run() {
        while (step(in_.u8())) {
        }
        out_.root_ = pop();
    }

 private:
    [[noreturn]] void fail(const std::string& what) const {
        throw Error("[" + path_ + "] " + what + " at byte " + std::to_string(in_.offset()),
                    ErrorKind::model, hint_);
    }

    void push(uint32_t value) {
        if (stack_.size() >= most_values) fail("a stack of more than 1048576 values");
        stack_.push_back(value);
    }
    PickleValue& add(Kind kind) {
        if (out_.values_.size() >= most_values) fail("more than 1048576 values");
        out_.values_.push_back({});
        out_.values_.back().kind = kind;
        push(uint32_t(out_.values_.size() - 1));
        return out_.values_.back();
    }
    void add_integer(Kind kind, int64_t value) { add(kind).integer = value; }

    // Nothing below the last mark may be taken.
    size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    uint32_t top() const {
        if (stack_.size() <= floor()) fail("a value is taken from an empty stack");
        return stack_.back();
    }
    uint32_t pop() {
        const uint32_t value = top();
        stack_.pop_back();
        return value;
    }
    // Everything above the last mark, which goes too.
    std::vector<uint32_t> pop_mark() {
        if (marks_.empty()) fail("no mark on the stack");
        const std::vector<uint32_t> taken(stack_.begin() + ptrdiff_t(marks_.back()), stack_.end());
        stack_.resize(marks_.back());
        marks_.pop_back();
        return taken;
    }
    PickleValue& value(uint32_t index) { return out_.values_[index]; }

    void add_text(Kind kind, uint64_t bytes) {
        if (bytes > in_.left()) fail("truncated: a string of " + std::to_string(bytes) + " bytes");
        const char* text = reinterpret_cast<const char*>(in_.take(size_t(bytes)));
        add(kind).text = std::string_view(text, size_t(bytes));
    }
    // Little-endian, two's complement.
    void add_long(uint64_t bytes) {
        if (bytes > in_.left()) fail("truncated: a number of " + std::to_string(bytes) + " bytes");
        const uint8_t* digits = in_.take(size_t(bytes));
        if (bytes > 8) {
            add(Kind::large);
            return;
        }
        uint64_t sum = bytes > 0 && digits[bytes - 1] >= 128 ? ~uint64_t(0) : 0;
        for (size_t i = size_t(bytes); i-- > 0;) sum = sum << 8 | digits[i];
        add_integer(Kind::integer, int64_t(sum));
    }
    void add_real() {  // big-endian
        uint64_t bits = uint64_t(in_.u32be()) << 32;
        bits |= in_.u32be();
        add(Kind::real).real = std::bit_cast<double>(bits);
    }
    void add_sequence(std::vector<uint32_t> items) { add(Kind::sequence).items = std::move(items); }
    void add_tuple(size_t size) {
        std::vector<uint32_t> items(size);
        for (size_t i = size; i-- > 0;) items[i] = pop();
        add_sequence(std::move(items));
    }

    std::string_view line() {
        const size_t start = in_.offset();
        while (in_.u8() != '\n')
            if (in_.offset() - start > 256) fail("a name of more than 256 bytes");
        return {reinterpret_cast<const char*>(data_ + start), in_.offset() - start - 1};
    }
    void add_global(std::string_view module, std::string_view name) {
        const int64_t number = allow_(module, name);
        if (number == -1)
            fail("it asks for " + std::string(module.substr(0, 256)) + "." +
                 std::string(name.substr(0, 256)) + ", which is not read");
        add_integer(Kind::global, number);
    }
    void stack_global() {
        const PickleValue &name = value(pop()), &module = value(pop());
        if (name.kind != Kind::text || module.kind != Kind::text) fail("a class without a name");
        add_global(module.text, name.text);
    }

    void call() {
        const uint32_t arguments = pop(), function = pop();
        if (value(function).kind != Kind::global || value(arguments).kind != Kind::sequence)
            fail("a call of what is no function");
        const int64_t number = value(function).integer;
        if (number == Pickle::pickle_dict) {
            const auto& given = value(arguments).items;
            if (given.empty()) {
                add(Kind::dict);
            } else if (given.size() == 1 && value(given[0]).kind == Kind::dict) {
                push(given[0]);
            } else {
                fail("a dict made of something else");
            }
            return;
        }
        PickleValue& made = add(Kind::call);
        made.integer = number;
        made.items = {arguments};
    }
    void append(Kind kind, const std::vector<uint32_t>& items) {
        PickleValue& to = value(top());
        if (to.kind != kind || (kind == Kind::dict && items.size() % 2 != 0))
            fail("items for what is no container of them");
        to.items.insert(to.items.end(), items.begin(), items.end());
    }

    void put(uint32_t key) {
        if (memo_.size() >= most_values) fail("a memo of more than 1048576 values");
        memo_[key] = top();
    }
    void get(uint32_t key) {
        const auto at = memo_.find(key);
        if (at == memo_.end()) fail("the memo has no " + std::to_string(key));
        push(at->second);
    }

    // False after the last.
    bool step(uint8_t opcode) {
        switch (opcode) {
            case 0x80:  // PROTO
                if (const uint8_t protocol = in_.u8(); protocol < 2 || protocol > 5)
                    fail("pickle protocol " + std::to_string(protocol));
                break;
            case 0x95:  // FRAME
                if (in_.u64le() > in_.left()) fail("truncated: a frame ends behind the pickle");
                break;
            case '.':
                return false;
            case '(':
                if (marks_.size() >= most_values) fail("more than 1048576 marks");
                marks_.push_back(stack_.size());
                break;
            case '0':
                pop();
                break;
            case '1':
                pop_mark();
                break;
            case '2':
                push(top());
                break;

            case 'N':
                add(Kind::none);
                break;
            case 0x88:
                add_integer(Kind::boolean, 1);
                break;
            case 0x89:
                add_integer(Kind::boolean, 0);
                break;
            case 'J':
                add_integer(Kind::integer, int32_t(in_.u32le()));
                break;
            case 'K':
                add_integer(Kind::integer, in_.u8());
                break;
            case 'M':
                add_integer(Kind::integer, in_.u16le());
                break;
            case 0x8a:
                add_long(in_.u8());
                break;
            case 0x8b:
                add_long(in_.u32le());
                break;
            case 'G':
                add_real();
                break;

            case 'X':
                add_text(Kind::text, in_.u32le());
                break;
            case 0x8c:
                add_text(Kind::text, in_.u8());
                break;
            case 0x8d:
                add_text(Kind::text, in_.u64le());
                break;
            case 'T':
                add_text(Kind::text, in_.u32le());
                break;  // Python 2's strings
            case 'U':
                add_text(Kind::text, in_.u8());
                break;
            case 'B':
                add_text(Kind::bytes, in_.u32le());
                break;
            case 'C':
                add_text(Kind::bytes, in_.u8());
                break;
            case 0x8e:
            case 0x96:
                add_text(Kind::bytes, in_.u64le());
                break;

            case ')':
            case ']':
            case 0x8f:
                add(Kind::sequence);
                break;
            case 't':
            case 0x91:
                add_sequence(pop_mark());
                break;
            case 0x85:
                add_tuple(1);
                break;
            case 0x86:
                add_tuple(2);
                break;
            case 0x87:
                add_tuple(3);
                break;
            case '}':
                add(Kind::dict);
                break;
            case 'a': {
                const uint32_t item = pop();
                append(Kind::sequence, {item});
                break;
            }
            case 'e':
            case 0x90:
                append(Kind::sequence, pop_mark());
                break;
            case 's': {
                const uint32_t item = pop(), key = pop();
                append(Kind::dict, {key, item});
                break;
            }
            case 'u':
                append(Kind::dict, pop_mark());
                break;

            case 'c': {
                const std::string_view module = line();
                add_global(module, line());
                break;
            }
            case 0x93:
                stack_global();
                break;
            case 'R':
            case 0x81:
                call();
                break;
            case 'b':  // attributes; those of a dict do not matter
                pop();
                if (value(top()).kind != Kind::dict) fail("attributes of what is no dict");
                break;
            case 'Q': {
                const uint32_t id = pop();
                add(Kind::persistent).items = {id};
                break;
            }

            case 'q':
                put(in_.u8());
                break;
            case 'r':
                put(in_.u32le());
                break;
            case 0x94:
                put(uint32_t(memo_.size()));
                break;
            case 'h':
                get(in_.u8());
                break;
            case 'j':
                get(in_.u32le());
                break;
            default:
                fail("opcode " + std::to_string(opcode) + " is not read");
        }
        return true;
    }

    Pickle& out_;
    const uint8_t* data_;
    Reader in_;
    const std::string& path_;
    const Pickle::Allow& allow_;
    const std::string& hint_;
    std::vector<uint32_t> stack_;
    std::vector<size_t> marks_;
    std::unordered_map<uint32_t, uint32_t> memo_;
};

Pickle::Pickle(const std::vector<uint8_t>& bytes, const std::string& path, const Allow& allow,
               const std::string& hint) {
    PickleMachine(*this, bytes, path, allow, hint).run();
}

}  // namespace nc
