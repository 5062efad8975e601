//! Writes the function, the type that stands for it, and the checks that place errors at the parameters.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, ItemFn, LitStr, Result};

use crate::attributes::{Options, camel_case};
use crate::parameter::{self, Parameter};

pub(crate) fn step(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(options)?;
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let parameters = parameter::read(&function.sig.inputs)?;
    let ident = &function.sig.ident;
    let name =
        options.name.clone().unwrap_or_else(|| LitStr::new(ident.to_string().trim_start_matches("r#"), ident.span()));
    let definition = options.definition.clone().unwrap_or_else(|| camel_case(&ident.to_string(), ident.span()));

    let outer = outer(&function, &definition, &parameters);
    let described = described(&function, &options, &definition, &name, &parameters);
    let checks = checks(&function, &parameters);
    Ok(quote! { #outer #described #checks })
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(syn::Error::new_spanned(
            signature.fn_token,
            "a step is an `async fn`; run blocking work in it with `tokio::task::spawn_blocking`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(
            &signature.generics,
            "a step has no generic parameters: a worker calls it by name",
        ));
    }
    Ok(())
}

/// The function under its own name: it takes the same and gives the same, as a future that knows its step.
fn outer(function: &ItemFn, definition: &Ident, parameters: &[Parameter]) -> TokenStream {
    let (documentation, attributes): (Vec<_>, Vec<_>) =
        function.attrs.iter().partition(|attribute| attribute.path().is_ident("doc"));
    let visibility = &function.vis;
    let ident = &function.sig.ident;
    let arguments: Vec<Ident> =
        (0..parameters.len()).map(|at| format_ident!("argument{at}", span = Span::mixed_site())).collect();
    let types: Vec<_> = parameters.iter().map(|parameter| &parameter.ty).collect();
    let inner = ItemFn { attrs: Vec::new(), vis: syn::Visibility::Inherited, ..function.clone() };
    let output = match &function.sig.output {
        syn::ReturnType::Default => quote!(()),
        syn::ReturnType::Type(_, ty) => quote!(#ty),
    };
    quote! {
        #(#documentation)*
        #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)]
        #visibility fn #ident(#(#arguments: #types),*) -> ::tasker::step::Call<
            #definition,
            impl ::core::future::Future<Output = #output> + ::core::marker::Send + 'static,
        > {
            #[allow(clippy::unused_async, clippy::too_many_arguments)]
            #(#attributes)*
            #inner
            ::tasker::step::Call::new(#ident(#(#arguments),*))
        }
    }
}

/// The type that stands for the step, and what is known of it before it runs.
fn described(
    function: &ItemFn,
    options: &Options,
    definition: &Ident,
    name: &LitStr,
    parameters: &[Parameter],
) -> TokenStream {
    let visibility = &function.vis;
    let result = parameter::result(&function.sig.output);
    let summary = format!("The step `{}`.", name.value());
    let named = parameters.iter().map(|parameter| {
        let ty = &parameter.ty;
        let name = parameter.name.clone().unwrap_or_default();
        quote!(::tasker::step::Named { name: #name, schema: ::tasker::__schema_of!(#ty) })
    });
    let retry = options.retry.as_ref().map(|attempts| quote!(.retry(#attempts)));
    let timeout = options.timeout_ms.map(|ms| quote!(.timeout(::core::time::Duration::from_millis(#ms))));
    let queue = options.queue.as_ref().map(|queue| quote!(.queue(#queue)));
    quote! {
        #[doc = #summary]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #definition;

        impl ::tasker::step::StepDef for #definition {
            const NAME: &'static str = #name;
            type Output = #result;

            fn parameters() -> ::std::vec::Vec<::tasker::step::Named> {
                ::std::vec![#(#named),*]
            }

            fn result_schema() -> ::core::option::Option<::tasker::step::Schema> {
                ::tasker::__schema_of!(#result)
            }

            fn configure(step: ::tasker::step::Step) -> ::tasker::step::Step {
                step #retry #timeout #queue
            }
        }
    }
}

/// Says at the parameter's or the result's own place what does not fit.
fn checks(function: &ItemFn, parameters: &[Parameter]) -> TokenStream {
    let parameters = parameters.iter().map(|parameter| {
        let ty = &parameter.ty;
        quote_spanned!(ty.span()=> ::tasker::step::check_parameter::<#ty>();)
    });
    let output = match &function.sig.output {
        syn::ReturnType::Default => quote!(),
        syn::ReturnType::Type(_, ty) => {
            quote_spanned!(ty.span()=> ::tasker::step::check_result::<#ty, _>();)
        }
    };
    quote! {
        const _: fn() = || {
            #(#parameters)*
            #output
        };
    }
}
