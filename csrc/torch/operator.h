// Operators whose arguments are groups: structs with named members. The schema of an operator, the
// type of its kernels and the calls to it are derived from the list of its groups.
//
// A group is an aggregate with
//   static std::string schema()   its members as in a schema: "Tensor rowptr, Tensor col"
//   auto members() const          std::tie of its members, in the same order
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace gat::binding {

template <class Function>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

template <class Group>
using Members = decltype(std::declval<const Group&>().members());

template <class... Groups>
using MembersOfAll = decltype(std::tuple_cat(std::declval<Members<Groups>>()...));

// The number of members of the groups before the n-th.
template <class... Groups>
constexpr std::size_t num_members_before(std::size_t n) {
  constexpr std::size_t counts[] = {std::tuple_size_v<Members<Groups>>...};
  std::size_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += counts[i];
  return sum;
}

// The group whose i-th member is member(std::integral_constant<std::size_t, i>()).
template <class Group, class F>
Group make_group(const F& member) {
  return [&]<std::size_t... i>(std::index_sequence<i...>) {
    return Group{member(std::integral_constant<std::size_t, i>{})...};
  }(std::make_index_sequence<std::tuple_size_v<Members<Group>>>{});
}

// The dispatcher passes tensors by reference, and everything else by value.
template <class T>
using Passed = std::conditional_t<
    std::is_same_v<T, at::Tensor> || std::is_same_v<T, std::optional<at::Tensor>>, const T&, T>;

template <class R, class AllMembers, class... Groups>
struct GroupedFunction;
template <class R, class... Ts, class... Groups>
struct GroupedFunction<R, std::tuple<const Ts&...>, Groups...> {
  using Flat = R(Passed<Ts>...);

  // A kernel for the dispatcher: calls f with its arguments collected in groups.
  template <R (*f)(const Groups&...)>
  static R flat(Passed<Ts>... arguments) {
    const std::tuple<const Ts&...> all(arguments...);
    return [&]<std::size_t... g>(std::index_sequence<g...>) {
      return f(make_group<Groups>([&](auto i) -> decltype(auto) {
        return std::get<num_members_before<Groups...>(g) + decltype(i)::value>(all);
      })...);
    }(std::index_sequence_for<Groups...>{});
  }
};

// An operator. Self has its name, kName, and a function results(), the results in the syntax of a
// schema.
template <class Self, class R, class... Groups>
struct Operator : GroupedFunction<R, MembersOfAll<Groups...>, Groups...> {
  using Result = R;

  static std::string schema() {
    std::string arguments;
    ((arguments += (arguments.empty() ? "" : ", ") + Groups::schema()), ...);
    return Self::kName + ("(" + arguments + ") -> (" + Self::results() + ")");
  }

  static R call(const Groups&... groups) {
    static const auto op = find_operator<typename Operator::Flat>(Self::kName);
    return std::apply([](const auto&... each) { return op.call(each...); },
                      std::tuple_cat(groups.members()...));
  }
};

}  // namespace gat::binding
