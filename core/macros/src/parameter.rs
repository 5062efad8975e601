//! What the parameters of a step's function are called, and what its result is.

use syn::{FnArg, GenericArgument, Pat, PathArguments, Result, ReturnType, Type};

/// How many parameters a step may have.
const MOST: usize = 12;

/// One parameter.
pub(crate) struct Parameter {
    /// The name by which values are bound to it, where the pattern has one.
    pub(crate) name: Option<String>,
    pub(crate) ty: Type,
}

pub(crate) fn read(inputs: &syn::punctuated::Punctuated<FnArg, syn::Token![,]>) -> Result<Vec<Parameter>> {
    if let Some(extra) = inputs.iter().nth(MOST) {
        return Err(syn::Error::new_spanned(extra, "a step has at most 12 parameters; group some in a struct"));
    }
    inputs
        .iter()
        .map(|input| match input {
            FnArg::Receiver(receiver) => Err(syn::Error::new_spanned(
                receiver,
                "a step is a free function; take what `self` holds as `State<T>`",
            )),
            FnArg::Typed(typed) => {
                if let Type::Reference(reference) = &*typed.ty {
                    return Err(syn::Error::new_spanned(
                        reference,
                        "a step owns its parameters; take the value itself",
                    ));
                }
                Ok(Parameter { name: name(&typed.pat), ty: (*typed.ty).clone() })
            }
        })
        .collect()
}

/// `cart`, `mut cart` and `Dep(cart)` are all called `cart`.
fn name(pattern: &Pat) -> Option<String> {
    match pattern {
        Pat::Ident(ident) => {
            let name = ident.ident.to_string();
            Some(name.trim_start_matches("r#").trim_start_matches('_').to_owned()).filter(|name| !name.is_empty())
        }
        Pat::TupleStruct(tuple) if tuple.elems.len() == 1 => name(&tuple.elems[0]),
        Pat::Paren(paren) => name(&paren.pat),
        _ => None,
    }
}

/// The type of the stored result: what stands in `Result`, `Success`, `Decision`, `Batched` and `Settled`, or the returned type itself.
pub(crate) fn result(output: &ReturnType) -> Type {
    match output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => {
            inner(inner(ty, &["Result"]), &["Success", "Decision", "Batched", "Settled"]).clone()
        }
    }
}

fn inner<'t>(ty: &'t Type, of: &[&str]) -> &'t Type {
    let Type::Path(path) = ty else { return ty };
    let Some(last) = path.path.segments.last() else {
        return ty;
    };
    if !of.iter().any(|name| last.ident == name) {
        return ty;
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return ty;
    };
    arguments
        .args
        .iter()
        .find_map(|argument| match argument {
            GenericArgument::Type(inner) => Some(inner),
            _ => None,
        })
        .unwrap_or(ty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::{ToTokens, quote};

    #[test]
    fn the_result_is_what_is_stored() {
        for (signature, stored) in [
            (quote!(fn f()), "()"),
            (quote!(fn f() -> Cart), "Cart"),
            (quote!(fn f() -> Result<Cart, StepError>), "Cart"),
            (quote!(fn f() -> tasker::Result<Success<Cart>>), "Cart"),
            (quote!(fn f() -> Result<Settled<Vec<Cart>>, StepError>), "Vec < Cart >"),
            (quote!(fn f() -> tasker::Decision<Cart>), "Cart"),
        ] {
            let signature: syn::Signature = syn::parse2(signature).unwrap();
            assert_eq!(result(&signature.output).to_token_stream().to_string(), stored);
        }
    }

    #[test]
    fn parameters_are_called_what_their_patterns_bind() {
        let signature: syn::Signature =
            syn::parse_quote!(fn f(Input(order): Input<OrderIn>, mut cart: Dep<Cart>, _total: f64, (a, b): (u8, u8)));
        let names: Vec<_> = read(&signature.inputs).unwrap().into_iter().map(|parameter| parameter.name).collect();
        assert_eq!(names, [Some("order".into()), Some("cart".into()), Some("total".into()), None]);
        let method: syn::Signature = syn::parse_quote!(fn f(&self));
        assert!(read(&method.inputs).is_err());
    }
}
